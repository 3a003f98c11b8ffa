//! Label × label × service to verdict.
//!
//! ```text
//!   source label ──row──────┐
//!                           ├─▶ cell: which runs, how many ──▶ sorted runs
//!   destination label ─column┘
//! ```
//!
//! Labels that may the same things share a row, labels to which the same is allowed share a column,
//! cells that allow the same share their runs: a thousand laptops cost a thousand row numbers and
//! one row.
//!
//! INVARIANT, established by [`Matrix::check`]: rows, columns and cells point inside their sections; a
//! cell that is not empty names a whole list of runs; the runs of a list are sorted and disjoint;
//! label 0 has no rights in either direction.

use zerocopy::byteorder::little_endian::U32;

use crate::format::{CELL_COUNT_BITS, FIRST, RawLabel, RawRun, count};
use crate::{Denial, LabelId, RuleIndex, Service, TableError, Verdict};

/// A borrowed matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    pub(crate) labels: &'a [RawLabel],
    /// Rows of as many cells as there are columns.
    pub(crate) cells: &'a [U32],
    pub(crate) columns: usize,
    pub(crate) runs: &'a [RawRun],
}

/// Where the runs between two labels are; the default has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell(pub(crate) u32);

impl Cell {
    pub(crate) const fn new(first: u32, count: u32) -> Self {
        Self(first << CELL_COUNT_BITS | count)
    }

    #[inline]
    pub(crate) const fn first(self) -> usize {
        (self.0 >> CELL_COUNT_BITS) as usize
    }

    #[inline]
    pub(crate) const fn count(self) -> usize {
        (self.0 & ((1 << CELL_COUNT_BITS) - 1)) as usize
    }
}

impl Matrix<'_> {
    /// Whether `source` may use `service` of `destination`.
    #[inline]
    pub(crate) fn judge(&self, source: LabelId, destination: LabelId, service: Service) -> Verdict {
        self.verdict(self.cell(source, destination), service)
    }

    /// What is between two labels; nothing, if there are no such labels.
    #[inline]
    pub(crate) fn cell(&self, source: LabelId, destination: LabelId) -> Cell {
        let row = self.labels.get(usize::from(source.0)).map(|label| label.row.get());
        let column = self.labels.get(usize::from(destination.0)).map(|label| label.column.get());
        let (Some(row), Some(column)) = (row, column) else { return Cell::default() };
        let at = usize::from(row) * self.columns + usize::from(column);
        Cell(self.cells.get(at).map_or(0, |cell| cell.get()))
    }

    /// What a cell says of a service.
    #[inline]
    pub(crate) fn verdict(&self, cell: Cell, service: Service) -> Verdict {
        let service = service.bits();
        let (mut at, mut len) = (cell.first(), cell.count());
        if len == 0 {
            return Verdict::Deny(Denial::NoRuleForPair);
        }
        // The last run that begins at or before the service, or the first one.
        while len > 1 {
            let half = len / 2;
            let begins = self.runs.get(at + half).map_or(u32::MAX, |run| run.first.get());
            at += if begins <= service { half } else { 0 };
            len -= half;
        }
        match self.runs.get(at) {
            Some(run) if (run.first.get() <= service) & (service <= run.last.get()) => {
                Verdict::Allow(RuleIndex(run.rule.get() & !FIRST))
            }
            Some(_) | None => Verdict::Deny(Denial::PortNotAllowed),
        }
    }

    /// Establishes the invariant of this module, for a table of so many rules.
    pub(crate) fn check(&self, rules: usize) -> Result<(), TableError> {
        let rows = self.cells.len().checked_div(self.columns).unwrap_or(0);
        for (label, raw) in self.labels.iter().enumerate() {
            let (row, column) = (raw.row.get(), raw.column.get());
            if usize::from(row) >= rows || label == 0 && row != 0 {
                return Err(TableError::LabelRow { label, found: row });
            }
            if usize::from(column) >= self.columns || label == 0 && column != 0 {
                return Err(TableError::LabelColumn { label, found: column });
            }
        }
        let lists = self.check_runs(rules)?;
        for (at, raw) in self.cells.iter().enumerate() {
            let cell = Cell(raw.get());
            if cell == Cell::default() {
                continue;
            }
            let list = lists.get(cell.first()).copied().unwrap_or(0);
            if list == 0 || list != cell.count() {
                return Err(TableError::CellRuns { cell: at, found: cell.0 });
            }
            // Row 0 is the row of label 0, and column 0 its column.
            if at < self.columns || at.is_multiple_of(self.columns) {
                return Err(TableError::NobodyMay { cell: at });
            }
        }
        Ok(())
    }

    /// Returns for each run how many are in the list that begins with it; 0: none begins.
    fn check_runs(&self, rules: usize) -> Result<Vec<usize>, TableError> {
        let mut lists = vec![0; self.runs.len()];
        let (mut first, mut free_from) = (0, 0);
        for (at, run) in self.runs.iter().enumerate() {
            let (begin, last, rule) = (run.first.get(), run.last.get(), run.rule.get());
            if rule & FIRST != 0 {
                (first, free_from) = (at, 0);
            } else if at == 0 {
                return Err(TableError::RunFirst);
            }
            if begin < free_from || last < begin || last > Service::MAX.bits() {
                return Err(TableError::RunOrder { run: at });
            }
            if count(U32::new(rule & !FIRST)) >= rules {
                return Err(TableError::RunRule { run: at, found: rule & !FIRST });
            }
            free_from = last + 1;
            if let Some(list) = lists.get_mut(first) {
                *list += 1;
            }
        }
        Ok(lists)
    }
}
