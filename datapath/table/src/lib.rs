//! The compiled policy as flat tables: format, validated view, slow twin.
//!
//! ```text
//!   Draft ──emit──▶ bytes ──Table::new──▶ Table ──view, once per batch──▶ View ──▶ answers
//!     └──────────────────── oracle ──────────────────────────────────────────────▶ same answers
//!
//!   bytes:  header | endpoints | segments                     who, and where
//!           | v4 hosts | v6 hosts                               address → endpoint
//!           | v4 root, nodes, entries | v6 root, nodes, entries longest prefix → endpoint
//!           | labels | cells | runs                             label × label × service → verdict
//!           | labels | cells | runs of remarks | names | logs   what is counted and logged beside it
//! ```
//!
//! The bytes are position independent, little-endian and byte-aligned, so that what
//! came in a memfd is used as it is. [`Draft::emit`] is their only writer; [`Table::new`] checks them
//! completely, once, in time linear in their length.
//!
//! INVARIANT, established by [`Table::new`]: every index in the bytes lies inside the section that
//! it points into, tries are trees of bounded depth, runs are sorted and disjoint. Lookups still
//! use checked access, and what cannot be found is nobody, or denied: no lookup panics, whatever the
//! bytes are.
//!
//! Deny is the zero value throughout: a root of zeros knows nobody, a matrix of zeros allows
//! nothing, label 0 may nothing and endpoint 0 is nobody.
//!
//! The format has one version at a time. The two ends are released together, and a table of another
//! version is refused as a whole.
#![forbid(unsafe_code)]

mod draft;
mod emit;
mod error;
mod format;
mod hosts;
mod id;
pub mod limits;
mod log;
mod matrix;
pub mod oracle;
mod service;
mod table;
mod tag;
mod trie;
mod verdict;

pub use draft::{Cells, Draft, Run};
pub use error::{EmitError, TableError};
pub use id::{EndpointId, LabelId, PeerIndex, PortIndex, RuleIndex, RuleTag, SegmentId};
pub use log::Log;
pub use service::Service;
pub use table::{Table, View};
pub use trie::Family;
pub use verdict::{Denial, Endpoint, NextHop, Question, Segment, Stage, Verdict};
