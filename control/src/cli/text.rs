//! Text for people: aligned columns, times, sizes.

use std::time::Duration;

/// Rows as aligned columns, two spaces apart. A column of which every cell below the first row is a
/// number is aligned to the right.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let layout: Vec<(usize, bool)> = (0..count)
        .map(|column| {
            let cells = || rows.iter().filter_map(move |row| row.get(column));
            let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
            let mut body = cells().skip(1).peekable();
            let right = body.peek().is_some() && body.all(|cell| is_number(cell));
            (width, right)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&layout)
            .map(
                |(cell, (width, right))| {
                    if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                },
            )
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A time in its two largest units.
pub(super) fn duration(ms: u64) -> String {
    let time = Duration::from_millis(ms);
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, 0) => format!("{ms} ms"),
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

/// A size in the largest unit that leaves at least 1, one digit after the point.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let (mut tenths, mut unit) = (u128::from(count) * 10 / 1_024, "KiB");
    for larger in UNITS.iter().skip(1) {
        if tenths < 10_240 {
            break;
        }
        (tenths, unit) = (tenths / 1_024, larger);
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

fn is_number(cell: &str) -> bool {
    !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_lines_have_no_tail() {
        let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect();
        let rows = [
            row(&["port", "dropped", "note"]),
            row(&["outside", "7", ""]),
            row(&["in", "1234", "x"]),
        ];
        let want = "port     dropped  note\noutside        7\nin          1234  x\n";
        assert_eq!(columns(&rows), want);
        assert_eq!(columns(&[]), "");
    }

    #[test]
    fn times_and_sizes_are_short() {
        for (ms, want) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (59_999, "59 s"),
            (61_000, "1 min 1 s"),
            (7_260_000, "2 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(ms), want);
        }
        for (count, want) in [
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(bytes(count), want);
        }
    }
}
