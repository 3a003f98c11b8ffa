//! Cells to a matrix with shared rows, shared columns and shared lists of runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32};

use super::{at_most, narrow};
use crate::format::{FIRST, RawLabel, RawRun};
use crate::limits::{CELL_RUNS_MAX, CELLS_MAX, RUNS_MAX};
use crate::matrix::Cell;
use crate::{Cells, Draft, EmitError, LabelId, Run};

/// The sections of a matrix.
#[derive(Debug, Default)]
pub(super) struct RawMatrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) labels: Vec<RawLabel>,
    pub(super) cells: Vec<U32>,
    pub(super) runs: Vec<RawRun>,
}

/// What a label may, or what is allowed towards it: the other label or its class, and the cell, in
/// order. Most are sparse.
type Line = Vec<(u16, u32)>;

impl RawMatrix {
    pub(super) fn of(draft: &Draft, cells: &Cells) -> Result<Self, EmitError> {
        let mut matrix = Self::default();
        let mut lists = Lists::default();
        let mut rows_of: BTreeMap<LabelId, Line> = BTreeMap::new();
        for (&(source, destination), runs) in cells {
            let cell = lists.cell(&mut matrix, draft, (source, destination), runs)?;
            if cell != Cell::default() {
                rows_of.entry(source).or_default().push((destination.0, cell.0));
            }
        }
        matrix.classify(usize::from(draft.labels), rows_of)?;
        Ok(matrix)
    }

    fn push_runs(&mut self, runs: &[Run]) -> Result<Cell, EmitError> {
        at_most("runs between two labels", runs.len(), CELL_RUNS_MAX)?;
        let cell = Cell::new(narrow(self.runs.len()).get(), narrow(runs.len()).get());
        self.runs.extend(runs.iter().enumerate().map(|(at, run)| RawRun {
            first: U32::new(run.first.bits()),
            last: U32::new(run.last.bits()),
            rule: U32::new(run.rule.0 | if at == 0 { FIRST } else { 0 }),
        }));
        at_most("runs", self.runs.len(), RUNS_MAX)?;
        Ok(cell)
    }

    /// Gives every label its row and column. Row and column 0 are those of everybody who may
    /// nothing, or to whom nothing is allowed.
    fn classify(
        &mut self,
        labels: usize,
        rows_of: BTreeMap<LabelId, Line>,
    ) -> Result<(), EmitError> {
        self.labels = vec![RawLabel::default(); labels];
        let rows = classes(rows_of, |label, row| {
            if let Some(label) = self.labels.get_mut(usize::from(label.0)) {
                label.row = U16::new(row);
            }
        });
        let mut columns_of: BTreeMap<LabelId, Line> = BTreeMap::new();
        for (line, row) in rows.iter().zip(1..) {
            for &(destination, cell) in line {
                columns_of.entry(LabelId(destination)).or_default().push((row, cell));
            }
        }
        let columns = classes(columns_of, |label, column| {
            if let Some(label) = self.labels.get_mut(usize::from(label.0)) {
                label.column = U16::new(column);
            }
        });
        (self.rows, self.columns) = (rows.len() + 1, columns.len() + 1);
        at_most("cells", self.rows * self.columns, CELLS_MAX)?;
        self.cells = vec![U32::ZERO; self.rows * self.columns];
        for (line, column) in columns.iter().zip(1..) {
            for &(row, cell) in line {
                let at = usize::from(row) * self.columns + column;
                if let Some(place) = self.cells.get_mut(at) {
                    *place = U32::new(cell);
                }
            }
        }
        Ok(())
    }
}

/// The lists that were met.
#[derive(Default)]
struct Lists {
    /// By where the list is. The draft keeps it there meanwhile.
    shared: HashMap<*const Run, Cell>,
    equal: BTreeMap<Vec<Run>, Cell>,
}

impl Lists {
    /// The cell of a list, which is the default one if the list is empty.
    fn cell(
        &mut self,
        matrix: &mut RawMatrix,
        draft: &Draft,
        (source, destination): (LabelId, LabelId),
        runs: &Arc<[Run]>,
    ) -> Result<Cell, EmitError> {
        check_labels(draft, source, destination)?;
        if runs.is_empty() {
            return Ok(Cell::default());
        }
        if let Some(cell) = self.shared.get(&runs.as_ptr()) {
            return Ok(*cell);
        }
        let sorted = checked(draft, source, destination, runs)?;
        let cell = match self.equal.get(&sorted) {
            Some(cell) => *cell,
            None => {
                let cell = matrix.push_runs(&sorted)?;
                self.equal.insert(sorted, cell);
                cell
            }
        };
        self.shared.insert(runs.as_ptr(), cell);
        Ok(cell)
    }
}

/// The distinct lines in the order in which they are met, numbered from 1; tells each label's.
fn classes(lines: BTreeMap<LabelId, Line>, mut tell: impl FnMut(LabelId, u16)) -> Vec<Line> {
    let mut known: BTreeMap<Line, u16> = BTreeMap::new();
    let mut distinct = vec![];
    for (label, line) in lines {
        // Fewer than labels, which fit.
        let next = u16::try_from(distinct.len() + 1).unwrap_or(0);
        let class = *known.entry(line).or_insert_with_key(|line| {
            distinct.push(line.clone());
            next
        });
        tell(label, class);
    }
    distinct
}

fn check_labels(
    draft: &Draft,
    source_label: LabelId,
    destination: LabelId,
) -> Result<(), EmitError> {
    let exists = |label: LabelId| (1..draft.labels).contains(&label.0);
    match exists(source_label) && exists(destination) {
        true => Ok(()),
        false => Err(EmitError::CellLabel { source_label, destination }),
    }
}

/// The runs of a cell, sorted, once nothing is wrong with them.
fn checked(
    draft: &Draft,
    source_label: LabelId,
    destination: LabelId,
    runs: &[Run],
) -> Result<Vec<Run>, EmitError> {
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
