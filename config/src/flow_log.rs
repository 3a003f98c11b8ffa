//! `[flow_log]`: where the flow log is written, and how much of it is kept.

/// `[flow_log]`. Takes effect with an apply. Which flows are logged each rule says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLog {
    /// The file, one JSON object on a line; or a plain name in the state folder.
    pub file: String,
    /// How large it becomes, mebibytes, before it is moved to `.1` and begun anew.
    pub size_max_mib: u32,
    /// Whether it is logged what is denied because no rule allows it.
    pub denied: bool,
}

impl FlowLog {
    /// What `bulkheadd` itself keeps in its state folder, also while it replaces it.
    pub const TAKEN: &[&str] =
        &["facts", "history", "published.json", "published.new", "timestamps", "timestamps.new"];
}
