//! Label × label × service to verdict.
//!
//! ```text
//!   source label ──source_rows──▶ row ──destination label──▶ cell ──▶ span ──▶ sorted runs
//! ```
//!
//! Labels that may the same things share a row, cells that hold the same runs share a span: a
//! thousand laptops cost a thousand row numbers and one row.
//!
//! INVARIANT, established by [`Matrix::check`]: row numbers, cells and spans point inside their
//! sections; the runs of a span are sorted and disjoint; label 0 has no rights in either direction.

use zerocopy::byteorder::little_endian::{U16, U32};

use crate::format::{RawRun, RawSpan, count};
use crate::{Denial, LabelId, RuleIndex, Service, TableError, Verdict};

/// A borrowed matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    /// One per label.
    pub(crate) source_rows: &'a [U16],
    /// Rows of as many cells as there are labels.
    pub(crate) cells: &'a [U32],
    pub(crate) spans: &'a [RawSpan],
    pub(crate) runs: &'a [RawRun],
}

impl Matrix<'_> {
    /// Whether `source` may use `service` of `destination`.
    #[inline]
    pub(crate) fn judge(&self, source: LabelId, destination: LabelId, service: Service) -> Verdict {
        let runs = self.runs_between(source, destination).unwrap_or(&[]);
        if runs.is_empty() {
            return Verdict::Deny(Denial::NoRuleForPair);
        }
        // The last run that begins at or before the service.
        let behind = runs.partition_point(|run| run.first.get() <= service.bits());
        match behind.checked_sub(1).and_then(|at| runs.get(at)) {
            Some(run) if service.bits() <= run.last.get() => {
                Verdict::Allow(RuleIndex(run.rule.get()))
            }
            Some(_) | None => Verdict::Deny(Denial::PortNotAllowed),
        }
    }

    #[inline]
    fn runs_between(&self, source: LabelId, destination: LabelId) -> Option<&[RawRun]> {
        let labels = self.source_rows.len();
        let column = usize::from(destination.0);
        if column >= labels {
            return None;
        }
        let row = usize::from(self.source_rows.get(usize::from(source.0))?.get());
        let span = self.spans.get(count(*self.cells.get(row * labels + column)?))?;
        self.runs.get(count(span.first)..)?.get(..count(span.count))
    }

    /// Establishes the invariant of this module, for a table of so many rules.
    pub(crate) fn check(&self, rules: usize) -> Result<(), TableError> {
        let labels = self.source_rows.len();
        let rows = self.cells.len().checked_div(labels).unwrap_or(0);
        for (label, row) in self.source_rows.iter().enumerate() {
            let found = row.get();
            if usize::from(found) >= rows || label == 0 && found != 0 {
                return Err(TableError::SourceRow { label, found });
            }
        }
        for (cell, span) in self.cells.iter().enumerate() {
            if count(*span) >= self.spans.len() {
                return Err(TableError::CellSpan { cell, found: span.get() });
            }
            // Row 0 is the row of label 0, and column 0 its column.
            if span.get() != 0 && (cell < labels || cell.is_multiple_of(labels)) {
                return Err(TableError::NobodyMay { cell });
            }
        }
        let mut end = 0;
        for (at, span) in self.spans.iter().enumerate() {
            let (first, len) = (count(span.first), count(span.count));
            if first != end || (len == 0) != (at == 0) || len > self.runs.len() - end {
                return Err(TableError::SpanBounds { span: at });
            }
            end += len;
            let runs = self.runs.get(first..end).unwrap_or(&[]);
            check_runs(runs, first, rules)?;
        }
        if end == self.runs.len() {
            Ok(())
        } else {
            Err(TableError::SpanBounds { span: self.spans.len() })
        }
    }
}

/// Checks the runs of one span, whose first is run `first` of all.
fn check_runs(runs: &[RawRun], first: usize, rules: usize) -> Result<(), TableError> {
    let mut free_from = 0;
    for (run, at) in runs.iter().zip(first..) {
        let (begin, last) = (run.first.get(), run.last.get());
        if begin < free_from || last < begin || last > Service::MAX.bits() {
            return Err(TableError::RunOrder { run: at });
        }
        if count(run.rule) >= rules {
            return Err(TableError::RunRule { run: at, found: run.rule.get() });
        }
        free_from = last + 1;
    }
    Ok(())
}
