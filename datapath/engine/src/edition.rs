//! One edition of the policy: its table, and the label that every endpoint has now.
//!
//! The table says which label each endpoint starts with. Posture, time and risk change that while
//! the table stays: control evaluates the conditions and sends the outcome, one number for an endpoint.
//!
//! ```text
//!   link thread ── set ──▶ labels ◀── read, packet by packet ── workers
//!               ── Fence ─▶ ... every worker has finished the batch it was in ─▶ acknowledged
//! ```
//!
//! INVARIANT: labels belong to the table that they came with. A new edition starts with the labels
//! of its own table, so no packet is judged by the labels of one and the cells of another.

use core::fmt;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use bulkhead_table::{EndpointId, LabelId, Table, View};

use crate::hits::Hits;

/// A table with its labels, and what each worker counts of its rules. Shared by all workers.
pub struct Edition {
    number: u32,
    table: Table,
    labels: Labels,
    hits: Box<[Hits]>,
    /// For a worker that there is not.
    no_hits: Hits,
}

/// The number of the next edition of this process. What a worker remembers by an edition's number is true of no
/// other, whatever generations control numbers; two would have the same one after four thousand million applies.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// An edition as one worker judges by it, for one batch.
pub struct Law<'e> {
    /// The number of the edition.
    pub number: u32,
    /// What is allowed.
    pub table: View<'e>,
    /// Who has which label now.
    pub labels: &'e Labels,
    /// What this worker counts.
    pub hits: &'e Hits,
}

/// The label of every endpoint of one table.
pub struct Labels(Box<[AtomicU16]>);

/// Why an endpoint did not get a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelabelError {
    /// The table has no such endpoint. Nothing changed.
    Endpoint(u32),
    /// The table has no such label. The endpoint got label 0, which may nothing: whatever it was
    /// meant to lose it has lost.
    Label(u32, u16),
}

impl fmt::Display for RelabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => write!(f, "the table has no endpoint {endpoint}"),
            Self::Label(endpoint, label) => {
                write!(f, "the table has no label {label}; endpoint {endpoint} may nothing now")
            }
        }
    }
}

impl core::error::Error for RelabelError {}

impl Edition {
    /// An edition with the labels of its table, for so many workers.
    #[must_use]
    pub fn new(table: Table, workers: usize) -> Self {
        let view = table.view();
        let label = |id: usize| {
            let id = EndpointId(u32::try_from(id).unwrap_or(0));
            view.endpoint(id).map_or(LabelId(0), |endpoint| endpoint.label)
        };
        let labels = (0..table.endpoint_count()).map(|id| AtomicU16::new(label(id).0)).collect();
        let rules = u32::try_from(table.rule_count()).unwrap_or(u32::MAX);
        let hits = (0..workers).map(|_| Hits::new(rules)).collect();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { number, labels: Labels(labels), hits, no_hits: Hits::new(0), table }
    }

    /// The table.
    #[inline]
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The labels.
    #[inline]
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The edition as this worker judges by it.
    #[inline]
    #[must_use]
    pub fn law(&self, worker: usize) -> Law<'_> {
        let (number, table) = (self.number, self.table.view());
        Law { number, table, labels: &self.labels, hits: self.hits(worker) }
    }

    /// What a worker has counted.
    #[inline]
    #[must_use]
    pub fn hits(&self, worker: usize) -> &Hits {
        self.hits.get(worker).unwrap_or(&self.no_hits)
    }

    /// Gives an endpoint another label, from the next packet on.
    ///
    /// # Errors
    ///
    /// [`RelabelError`]; a label that the table does not have denies.
    pub fn relabel(&self, endpoint: EndpointId, label: LabelId) -> Result<(), RelabelError> {
        // Endpoint 0 is nobody.
        let place = (endpoint.0 > 0).then(|| self.labels.0.get(endpoint.0 as usize)).flatten();
        let place = place.ok_or(RelabelError::Endpoint(endpoint.0))?;
        let known = usize::from(label.0) < self.table.label_count();
        place.store(if known { label.0 } else { 0 }, Ordering::Relaxed);
        if known { Ok(()) } else { Err(RelabelError::Label(endpoint.0, label.0)) }
    }
}

impl Labels {
    /// The label that an endpoint has now; 0, which may nothing, for one that there is not.
    #[inline]
    #[must_use]
    pub fn of(&self, endpoint: EndpointId) -> LabelId {
        // Nothing else is published with a label; the fence that acknowledges a change goes through
        // the command ring.
        LabelId(self.0.get(endpoint.0 as usize).map_or(0, |label| label.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::draft;
    use std::sync::Arc;

    #[test]
    fn a_label_that_the_table_does_not_have_denies() {
        let edition =
            Edition::new(Table::new(Arc::new(draft(1, 2, &[]).emit().unwrap())).unwrap(), 1);
        let label = |id| edition.labels().of(EndpointId(id)).0;
        assert_eq!([label(0), label(1), label(2), label(3), label(4)], [0, 1, 2, 3, 0]);
        assert_eq!(edition.relabel(EndpointId(1), LabelId(3)), Ok(()));
        assert_eq!(
            edition.relabel(EndpointId(2), LabelId(4)),
            Err(RelabelError::Label(2, 4)),
            "one more than there are"
        );
        assert_eq!(edition.relabel(EndpointId(4), LabelId(1)), Err(RelabelError::Endpoint(4)));
        assert_eq!(edition.relabel(EndpointId(0), LabelId(1)), Err(RelabelError::Endpoint(0)));
        assert_eq!([label(0), label(1), label(2), label(3), label(4)], [0, 3, 0, 3, 0]);
    }
}
