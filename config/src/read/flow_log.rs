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
        if value.is_empty() || value.ends_with('/') || value.contains('\0') {
            let error = reader
                .mistake(&span, &section.key("file"), Mistake::BadValue)
                .problem("not the name of a file")
                .accepted("a path, for example /var/log/bulkhead/flows.jsonl");
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

/// The reader has checked the limits, which are within the type.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
