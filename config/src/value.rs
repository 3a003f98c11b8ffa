//! Single values: texts, numbers, durations.

use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::error::Mistake;
use crate::reader::{At, Reader};

/// A text; `None` with a mistake in the report.
pub(crate) fn text_of<'a>(
    reader: &mut Reader<'a>,
    value: &'a Spanned<DeValue<'a>>,
    key: &str,
) -> Option<At<&'a str>> {
    let DeValue::String(text) = value.get_ref() else {
        reader.wrong_type(value, key, "a text in quotes");
        return None;
    };
    Some(At { value: text.as_ref(), span: value.span() })
}

/// A whole number within limits; `None` with a mistake in the report.
pub(crate) fn number_of(
    reader: &mut Reader<'_>,
    value: &Spanned<DeValue<'_>>,
    key: &str,
    limits: RangeInclusive<u64>,
) -> Option<At<u64>> {
    let DeValue::Integer(integer) = value.get_ref() else {
        reader.wrong_type(value, key, "a whole number");
        return None;
    };
    match u64::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) if limits.contains(&number) => Some(At { value: number, span: value.span() }),
        Ok(_) | Err(_) => {
            let error = reader
                .mistake(&value.span(), key, Mistake::OutOfRange)
                .problem("out of range")
                .found(integer.to_string())
                .accepted(format!("{} to {}", limits.start(), limits.end()));
            reader.report(error);
            None
        }
    }
}

/// A duration as it is written; `None` if it is none at all.
pub(crate) fn duration_of(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

/// The shortest way to write it.
pub(crate) fn written(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// A number of things, for messages: `1 device`, `2 devices`.
#[must_use]
pub fn counted(number: impl fmt::Display + PartialEq + From<u8>, noun: &str) -> String {
    let plural = if number == 1.into() { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// What a value is, in the words of a message.
pub(crate) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(duration_of("1500ms"), Some(Duration::from_millis(1_500)));
        assert_eq!(duration_of("25s"), Some(Duration::from_secs(25)));
        assert_eq!(duration_of("2m"), Some(Duration::from_secs(120)));
        let too_long = format!("{}m", u64::MAX);
        for bad in ["", "s", "25", "25 s", "-1s", "+1s", "1.5s", "1h", "ö", &too_long] {
            assert_eq!(duration_of(bad), None, "{bad}");
        }
        assert_eq!(written(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(written(Duration::from_secs(120)), "120s");
    }

    #[test]
    fn one_is_no_plural() {
        let said = [0u64, 1, 2].map(|number| counted(number, "device"));
        assert_eq!(said, ["0 devices", "1 device", "2 devices"]);
    }
}
