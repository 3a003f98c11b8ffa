//! `[flow_log]`.

use crate::error::Mistake;
use crate::limits::{self, default};
use crate::reader::{At, Reader};
use crate::section::Section;
use crate::{FlowLog, keys};

const DENIED: &[(&str, bool)] = &[("none", false), ("new", true)];

/// The table, or the defaults without one.
pub(super) fn flow_log<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> FlowLog {
    let mut log = FlowLog {
        file: default::FLOW_LOG_FILE.to_owned(),
        size_max_mib: narrow(default::FLOW_LOG_SIZE_MIB),
        denied: false,
    };
    let Some(section) = root.table(reader, "flow_log", keys::FLOW_LOG) else { return log };
    if let Some(At { value, span }) = section.text(reader, "file") {
        if let Some(problem) = problem_of(value) {
            let error = reader
                .mistake(&span, &section.key("file"), Mistake::BadValue)
                .problem(problem)
                .found(value)
                .accepted(format!(
                    "an absolute path, or a name without / other than {}",
                    FlowLog::TAKEN.join(", ")
                ))
                .help("write flows.jsonl, or a path like /var/log/bulkhead/flows.jsonl");
            reader.report(error);
        }
        value.clone_into(&mut log.file);
    }
    let size = section.number(
        reader,
        "size_max_mib",
        limits::FLOW_LOG_SIZE_MIB,
        default::FLOW_LOG_SIZE_MIB,
    );
    log.size_max_mib = narrow(size.value);
    log.denied = section.choice(reader, "denied", DENIED).unwrap_or_default();
    log
}

/// What the state folder has besides is the daemon's: see [`FlowLog::TAKEN`]. Whether an absolute path leads
/// there only the daemon knows.
fn problem_of(file: &str) -> Option<&'static str> {
    if file.is_empty() || file.ends_with('/') || file.contains('\0') || [".", ".."].contains(&file)
    {
        return Some("not the name of a file");
    }
    if file.starts_with('/') {
        return None;
    }
    if FlowLog::TAKEN.iter().any(|taken| file.split('/').next() == Some(taken)) {
        return Some("bulkheadd keeps its own state there");
    }
    file.contains('/')
        .then_some("a folder inside the state folder, where only bulkheadd has folders")
}

/// The reader has checked the limits, which are within the type.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
