//! From named identities and rules to the flat table, and questions about them.
//!
//! ```text
//!           endpoint            resolve           classes              lower
//!   Config ──────────▶ pieces of ──────▶ rules ──────────▶ labels ──────────────▶ Draft ──▶ table
//!     │                 the address      without           who cannot  disjoint runs,
//!     │                 space            names             be told     each with its rule,
//!     │                                                    apart       less what is denied
//!     └──▶ oracle: the same questions, answered from the Config by looking at every rule
//! ```
//!
//! INVARIANT: the table allows a flow exactly if some rule of the configuration that is in force
//! allows it and none denies it, and names the first rule of the file that allows it. What no rule
//! names has label 0, which may nothing. The same configuration gives the same draft, byte for
//! byte, on every machine.
//!
//! Every answer of [`Policy`] comes from the validated table, as the datapath reads it, and is
//! held against the oracle before it is given.
#![forbid(unsafe_code)]

mod asker;
mod classes;
mod clock;
#[cfg(feature = "company")]
pub mod company;
mod compile;
mod condition;
mod context;
mod diff;
mod endpoint;
mod expectation;
mod explain;
mod labels;
pub mod limits;
mod lint;
mod lower;
mod names;
pub mod oracle;
mod policy;
mod reach;
mod region;
mod resolve;
mod span;
mod standing;
mod summary;
mod usage;
mod verdict;
mod wall;

pub use compile::{
    CompileError, CompileErrors, Compiled, Compiler, PeerMap, compile, compile_with,
};
pub use condition::{ConditionId, Conditions, Held, Outcome};
pub use context::{Context, Fact, Facts, attribute_kind};
pub use diff::{Comparison, Diff, Now, Region, Witness, diff};
pub use expectation::{Failure, TestOutcome, run_tests};
pub use explain::{Explanation, NearRule, Party, RuleRef, TookPart, explain, explain_given, given};
pub use labels::Labels;
pub use lint::{Finding, FindingKind, Findings, Other, lint};
pub use names::{EndpointKind, EndpointName, Names, RuleName};
pub use policy::{Policy, QuestionError};
pub use reach::{Reach, ReachRow, reach, who_can};
pub use resolve::Reading;
pub use span::ServiceSpan;
pub use standing::{Changes, Relabel, Standing};
pub use summary::Summary;
pub use usage::Usage;
pub use verdict::{Denied, Verdict};
