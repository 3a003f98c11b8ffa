//! Cells to a matrix with shared rows and shared spans.

use std::collections::BTreeMap;

use zerocopy::byteorder::little_endian::{U16, U32};

use super::{at_most, narrow};
use crate::format::{RawRun, RawSpan};
use crate::limits::{CELLS_MAX, RUNS_MAX, SPANS_MAX};
use crate::{Draft, EmitError, LabelId, Run};

/// The sections of a matrix.
#[derive(Debug, Default)]
pub(super) struct RawMatrix {
    pub(super) rows: usize,
    pub(super) source_rows: Vec<U16>,
    pub(super) cells: Vec<U32>,
    pub(super) spans: Vec<RawSpan>,
    pub(super) runs: Vec<RawRun>,
}

/// What a source may: destinations and spans, in order. The row of most labels is sparse.
type Row = Vec<(LabelId, U32)>;

impl RawMatrix {
    pub(super) fn of(draft: &Draft) -> Result<Self, EmitError> {
        let mut matrix = Self { spans: vec![RawSpan::default()], ..Self::default() };
        let mut known_spans: BTreeMap<Vec<Run>, U32> = BTreeMap::new();
        let mut rows_of: BTreeMap<LabelId, Row> = BTreeMap::new();
        for (&(source, destination), runs) in &draft.cells {
            let runs = checked(draft, source, destination, runs)?;
            if runs.is_empty() {
                continue;
            }
            let span = match known_spans.get(&runs) {
                Some(span) => *span,
                None => {
                    let span = matrix.push_span(&runs)?;
                    known_spans.insert(runs, span);
                    span
                }
            };
            rows_of.entry(source).or_default().push((destination, span));
        }
        matrix.push_rows(usize::from(draft.labels), &rows_of)?;
        Ok(matrix)
    }

    fn push_span(&mut self, runs: &[Run]) -> Result<U32, EmitError> {
        let span = narrow(self.spans.len());
        let (first, count) = (narrow(self.runs.len()), narrow(runs.len()));
        self.spans.push(RawSpan { first, count });
        self.runs.extend(runs.iter().map(|run| RawRun {
            first: U32::new(run.first.bits()),
            last: U32::new(run.last.bits()),
            rule: U32::new(run.rule.0),
        }));
        at_most("distinct lists of runs", self.spans.len(), SPANS_MAX)?;
        at_most("runs", self.runs.len(), RUNS_MAX)?;
        Ok(span)
    }

    /// Row 0 is that of everybody who may nothing.
    fn push_rows(
        &mut self,
        labels: usize,
        rows_of: &BTreeMap<LabelId, Row>,
    ) -> Result<(), EmitError> {
        let mut known_rows: BTreeMap<&[(LabelId, U32)], U16> = BTreeMap::new();
        self.source_rows = vec![U16::ZERO; labels];
        self.cells = vec![U32::ZERO; labels];
        self.rows = 1;
        for (source, row) in rows_of {
            let number = match known_rows.get(row.as_slice()) {
                Some(number) => *number,
                None => {
                    at_most("cells", self.cells.len() + labels, CELLS_MAX)?;
                    let number = U16::new(u16::try_from(self.rows).unwrap_or(u16::MAX));
                    self.push_row(labels, row);
                    known_rows.insert(row, number);
                    number
                }
            };
            if let Some(entry) = self.source_rows.get_mut(usize::from(source.0)) {
                *entry = number;
            }
        }
        Ok(())
    }

    fn push_row(&mut self, labels: usize, row: &[(LabelId, U32)]) {
        let start = self.cells.len();
        self.cells.resize(start + labels, U32::ZERO);
        self.rows += 1;
        for (destination, span) in row {
            if let Some(cell) = self.cells.get_mut(start + usize::from(destination.0)) {
                *cell = *span;
            }
        }
    }
}

/// The runs of a cell, sorted, once nothing is wrong with them.
fn checked(
    draft: &Draft,
    source_label: LabelId,
    destination: LabelId,
    runs: &[Run],
) -> Result<Vec<Run>, EmitError> {
    let exists = |label: LabelId| (1..draft.labels).contains(&label.0);
    if !exists(source_label) || !exists(destination) {
        return Err(EmitError::CellLabel { source_label, destination });
    }
    let mut runs = runs.to_vec();
    runs.sort_unstable();
    for &Run { first, last, rule } in &runs {
        if last < first {
            return Err(EmitError::RunReversed { source_label, destination, first, last });
        }
        if rule.0 >= draft.rules {
            return Err(EmitError::RunRule { source_label, destination, rule });
        }
    }
    for pair in runs.windows(2) {
        if let [a, b] = pair
            && b.first <= a.last
        {
            return Err(EmitError::RunsOverlap { source_label, destination, service: b.first });
        }
    }
    Ok(runs)
}
