//! The slow twin: a table's questions, answered from the draft by looking at everything.
//!
//! Shares no code with the writer or the reader of the format, and does nothing that is not plain
//! to see. Its time is linear in the draft; it is for tests and for `explain`.

use bulkhead_wire::Address;

use crate::{
    Denial, Draft, Endpoint, EndpointId, LabelId, Log, RuleIndex, Segment, SegmentId, Service,
    Verdict,
};

/// Whose address this is, by the longest prefix that contains it.
#[must_use]
pub fn endpoint_at(draft: &Draft, address: Address) -> EndpointId {
    let ip = address.to_ip();
    let mut longest = None;
    let mut owner = EndpointId(0);
    for (prefix, endpoint) in &draft.prefixes {
        if prefix.contains(&ip) && longest.is_none_or(|len| prefix.prefix_len() > len) {
            longest = Some(prefix.prefix_len());
            owner = *endpoint;
        }
    }
    owner
}

/// What is known of an endpoint; nothing of nobody.
#[must_use]
pub fn endpoint(draft: &Draft, id: EndpointId) -> Option<Endpoint> {
    if id == EndpointId(0) {
        return None;
    }
    draft.endpoints.get(usize::try_from(id.0).ok()?).copied()
}

/// What is known of a segment.
#[must_use]
pub fn segment(draft: &Draft, id: SegmentId) -> Option<Segment> {
    draft.segments.get(usize::from(id.0)).copied()
}

/// The rule that is recorded beside the verdict.
#[must_use]
pub fn remark(
    draft: &Draft,
    source: LabelId,
    destination: LabelId,
    service: Service,
) -> Option<RuleIndex> {
    let runs = draft.remarks.get(&(source, destination))?;
    runs.iter().find(|run| run.first <= service && service <= run.last).map(|run| run.rule)
}

/// Which flows of a rule, or of what no rule allows, are logged.
#[must_use]
pub fn log(draft: &Draft, rule: Option<RuleIndex>) -> Log {
    match rule {
        None if draft.logs_denied => Log::New,
        None => Log::None,
        Some(rule) => {
            draft.logs.iter().rev().find(|(of, _)| *of == rule).map_or(Log::None, |(_, log)| *log)
        }
    }
}

/// Whether `source` may use `service` of `destination`.
#[must_use]
pub fn judge(draft: &Draft, source: LabelId, destination: LabelId, service: Service) -> Verdict {
    let Some(runs) = draft.cells.get(&(source, destination)) else {
        return Verdict::Deny(Denial::NoRuleForPair);
    };
    for run in runs.iter() {
        if run.first <= service && service <= run.last {
            return Verdict::Allow(run.rule);
        }
    }
    if runs.is_empty() {
        Verdict::Deny(Denial::NoRuleForPair)
    } else {
        Verdict::Deny(Denial::PortNotAllowed)
    }
}
