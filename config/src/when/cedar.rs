//! Cedar's part: syntax, types, and the twin of the evaluation.
//!
//! The schema is made of the attributes that the file knows. All of them are "there" for the type
//! checker, as a part that names something unknown is not evaluated at all.

use core::ops::Range;
use std::collections::{BTreeMap, HashMap, HashSet};

use cedar_policy::{
    Context, Entities, Entity, EntityUid, EvalResult, Expression, Policy, PolicySet, Request,
    RestrictedExpression, Schema, ValidationError, ValidationMode, ValidationWarning, Validator,
    eval_expression,
};
use miette::Diagnostic;
use serde_json::{Value as Json, json};

use super::tree::{Binary, Expr, Refused};
use super::{Knowing, Known, Name, When};
use crate::error::Mistake;
use crate::limits::{WHEN_BYTES_MAX, WHEN_DEPTH_MAX};
use crate::names::Names;
use crate::{AttributeKind, nearest};

/// What stands around an expression to make a policy of it.
const BEFORE: &str = "permit(principal, action, resource) when {\n";
const AFTER: &str = "\n};";

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) kind: Mistake,
    /// Bytes of the expression; `None`: all of it.
    pub(crate) span: Option<Range<usize>>,
    pub(crate) problem: String,
    pub(crate) accepted: Option<String>,
    pub(crate) help: Option<String>,
}

impl Complaint {
    fn new(span: Option<Range<usize>>, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { kind: Mistake::BadValue, span, problem, accepted: None, help: None }
    }

    /// Of one of Cedar's; `shift` bytes of the text that it read are not the operator's.
    fn of(found: &dyn Diagnostic, shift: usize) -> Self {
        let label = found.labels().and_then(|mut labels| labels.next());
        let span = label.as_ref().and_then(|label| {
            let start = label.offset().checked_sub(shift)?;
            Some(start..start.saturating_add(label.len()))
        });
        let mut complaint = Self::new(span, plain(&found.to_string()));
        complaint.accepted = label.and_then(|label| label.label().map(expected));
        complaint.help = found.help().map(|help| plain(&help.to_string()));
        if let Some(word) = complaint.problem.strip_prefix("unexpected token ") {
            complaint.help = match word {
                "`and`" => Some("write && for and".to_owned()),
                "`or`" => Some("write || for or".to_owned()),
                _ => complaint.help,
            };
        }
        complaint
    }
}

/// Without the name of a policy that the operator did not write, and types in the manual's words.
fn plain(text: &str) -> String {
    let policies = ["for policy `policy0`, ", "for policy `policy0`: ", "unexpected type: "];
    let text = policies.iter().fold(text.to_owned(), |text, policy| text.replace(policy, ""));
    match text.strip_prefix("expected ").and_then(|types| types.split_once(" but saw ")) {
        Some((wanted, found)) => format!("expected {} but saw {}", sort(wanted), sort(found)),
        None => text,
    }
}

/// What Cedar calls a sort of value, as [`AttributeKind`] and other messages call it.
fn sort(cedar: &str) -> &str {
    match cedar {
        "Bool" => "true or false",
        "Long" => "a whole number",
        "String" => "a text",
        "Set<String>" => "a list of texts",
        other => other,
    }
}

/// What Cedar's parser expected, less what an expression has no use for.
fn expected(label: &str) -> String {
    let useless = ["`{`, ", "`?principal`, ", "`?resource`, "];
    let label = plain(label);
    let list = label.strip_prefix("expected ").unwrap_or(&label);
    useless.iter().fold(list.to_owned(), |list, word| list.replace(word, ""))
}

/// Expressions over the names of one file. Each text is read once.
#[derive(Default)]
pub(crate) struct Language {
    validator: Option<Validator>,
    read: BTreeMap<String, Result<When, Complaint>>,
}

impl Language {
    /// Reads an expression and checks it against what the file knows.
    pub(crate) fn read(&mut self, names: &Names<'_>, text: &str) -> Result<When, Complaint> {
        if let Some(known) = self.read.get(text) {
            return known.clone();
        }
        let read = self.check(names, text);
        self.read.insert(text.to_owned(), read.clone());
        read
    }

    fn check(&mut self, names: &Names<'_>, text: &str) -> Result<When, Complaint> {
        if text.trim().is_empty() {
            return Err(Complaint::new(None, "empty"));
        }
        let (bytes, depth) = (text.len(), depth(text));
        if bytes > WHEN_BYTES_MAX {
            let problem = format!("the expression has {bytes} bytes; at most {WHEN_BYTES_MAX}");
            return Err(Complaint::new(None, problem));
        }
        if depth > WHEN_DEPTH_MAX {
            let problem = format!("brackets in {depth} brackets; at most {WHEN_DEPTH_MAX}");
            return Err(Complaint::new(None, problem));
        }
        // By itself first: what ends the policy early is no expression.
        text.parse::<Expression>().map_err(|errors| Complaint::of(&errors, 0))?;
        let policy = Policy::parse(None, format!("{BEFORE}{text}{AFTER}"))
            .map_err(|errors| Complaint::of(&errors, BEFORE.len()))?;
        let tree = body(&policy).ok_or(Refused::Json).and_then(|body| Expr::of(&body));
        if let Err(Refused::Construct(word)) = &tree {
            return Err(construct(text, word));
        }
        self.check_types(names, text, policy)?;
        match tree {
            Ok(expr) => match unknown_literal(names, text, &expr) {
                None => Ok(When::of(expr)),
                Some(complaint) => Err(complaint),
            },
            // What Cedar's types let pass has a tree.
            Err(_) => Err(Complaint::new(None, "not an expression that a condition can be")),
        }
    }

    fn check_types(
        &mut self,
        names: &Names<'_>,
        text: &str,
        policy: Policy,
    ) -> Result<(), Complaint> {
        let broken = |error: String| Complaint::new(None, format!("cannot be checked: {error}"));
        if self.validator.is_none() {
            let schema = schema(names).map_err(broken)?;
            self.validator = Some(Validator::new(schema));
        }
        let policies = PolicySet::from_policies([policy]).map_err(|e| broken(e.to_string()))?;
        let Some(validator) = &self.validator else { return Err(broken(String::new())) };
        let result = validator.validate(&policies, ValidationMode::Strict);
        if let Some(error) = result.validation_errors().next() {
            let complaint = Complaint::of(error, BEFORE.len());
            let unknown = matches!(error, ValidationError::UnsafeAttributeAccess(_));
            return Err(if unknown { unknown_name(names, text, complaint) } else { complaint });
        }
        // Cedar warns of what can never hold, and of letters that look like others.
        match result.validation_warnings().next() {
            Some(ValidationWarning::ImpossiblePolicy(_)) => {
                Err(Complaint::new(None, "it never holds, whatever is known"))
            }
            Some(warning) => Err(Complaint::of(warning, BEFORE.len())),
            None => Ok(()),
        }
    }
}

/// How deep brackets stand in brackets, outside of texts.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'(' | b'[' | b'{' if !quoted => depth += 1,
            b')' | b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The expression of a policy with one condition.
fn body(policy: &Policy) -> Option<Json> {
    let json = policy.to_json().ok()?;
    let [condition] = json.get("conditions")?.as_array()?.as_slice() else { return None };
    condition.get("body").cloned()
}

fn schema(names: &Names<'_>) -> Result<Schema, String> {
    let of_kind = |kind: AttributeKind| match kind {
        AttributeKind::Bool => "Boolean",
        AttributeKind::Int => "Long",
        AttributeKind::Text => "String",
    };
    let clock = [("weekday", AttributeKind::Int), ("minute", AttributeKind::Int)];
    let known = names.attributes.iter().map(|(name, kind)| (*name, *kind)).chain(clock);
    let context: serde_json::Map<String, Json> =
        known.map(|(name, kind)| (name.to_owned(), json!({ "type": of_kind(kind) }))).collect();
    let texts = json!({ "type": "Set", "element": { "type": "String" } });
    let text = json!({ "type": "String" });
    let device = json!({ "name": text, "user": text, "groups": texts, "tags": texts });
    Schema::from_json_value(json!({ "": {
        "entityTypes": {
            "Device": { "shape": { "type": "Record", "attributes": device } },
            "Endpoint": {},
        },
        "actions": { "open": { "appliesTo": {
            "principalTypes": ["Device"],
            "resourceTypes": ["Endpoint"],
            "context": { "type": "Record", "attributes": context },
        } } },
    } }))
    .map_err(|error| error.to_string())
}

/// A part of the language that has no use here.
fn construct(text: &str, word: &str) -> Complaint {
    const ACCEPTED: &str = "context.NAME and principal.name, .user, .groups or .tags, joined by \
                            ! && || == != < <= > >= + - * like, contains, containsAll, \
                            containsAny, isEmpty and if then else";
    let mut complaint = Complaint::new(find(text, word), format!("{word} has no use here"));
    complaint.accepted = Some(ACCEPTED.to_owned());
    complaint.help = match word {
        "has" => Some("what is not known never makes a condition hold; name it as if it were"),
        "in" | "::" | "is" => {
            Some("write principal.groups.contains(\"NAME\") for who is in a group")
        }
        "resource" | "action" => Some("a condition is about the one who asks, and about the time"),
        _ => None,
    }
    .map(str::to_owned);
    complaint
}

/// Where something stands as a word of its own, outside of texts.
fn find(text: &str, word: &str) -> Option<Range<usize>> {
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let is_word = word.chars().all(|c| part_of_word(Some(c)));
    text.match_indices(word).map(|(at, _)| at..at + word.len()).find(|span| {
        let before = text.get(..span.start).unwrap_or("");
        let after = text.get(span.end..).unwrap_or("");
        let alone =
            !part_of_word(before.chars().next_back()) && !part_of_word(after.chars().next());
        let quotes = before.replace("\\\\", "").replace("\\\"", "").matches('"').count();
        quotes % 2 == 0 && (alone || !is_word)
    })
}

/// There is no such attribute.
fn unknown_name(names: &Names<'_>, text: &str, complaint: Complaint) -> Complaint {
    let written = complaint.span.clone().and_then(|span| text.get(span)).unwrap_or("");
    let (variable, attribute) = written.split_once('.').unwrap_or((written, ""));
    let (variable, attribute) = (variable.trim(), attribute.trim());
    let known: Vec<&str> = if variable == "principal" {
        vec!["name", "user", "groups", "tags"]
    } else {
        names.attributes.keys().copied().chain(["weekday", "minute"]).collect()
    };
    let near = nearest(attribute, known.iter().copied());
    Complaint {
        kind: Mistake::UnknownName,
        problem: format!("there is no {written}"),
        accepted: Some(known.join(", ")),
        help: near.map(|near| format!("did you mean {variable}.{near}?")),
        ..complaint
    }
}

/// A text that is compared with a name of the file, and is none.
fn unknown_literal(names: &Names<'_>, text: &str, expr: &Expr) -> Option<Complaint> {
    let mut found = None;
    expr.walk(&mut |expr| {
        let Expr::Binary(binary, left, right) = expr else { return };
        if matches!(binary, Binary::And | Binary::Or) {
            return;
        }
        for (name, other) in [(left, right), (right, left)] {
            let Expr::Name(name) = &**name else { continue };
            let (kind, known) = match name {
                Name::Device => ("device", &names.devices),
                Name::User => ("user", &names.users),
                Name::Groups => ("group", &names.groups),
                Name::Tags => ("tag", &names.tags),
                Name::Attribute(_) | Name::Weekday | Name::Minute => continue,
            };
            let items = if let Expr::Set(items) = &**other { &items[..] } else { &[] };
            for item in items.iter().chain([&**other]) {
                let Expr::Text(literal) = item else { continue };
                if found.is_none() && !known.contains_key(literal.as_str()) {
                    let known: Vec<&str> = known.keys().copied().collect();
                    found = Some(unknown_of(kind, text, literal, &known));
                }
            }
        }
    });
    found
}

fn unknown_of(kind: &str, text: &str, literal: &str, known: &[&str]) -> Complaint {
    const SHOWN: usize = 8;
    let quoted = format!("\"{}\"", literal.escape_debug());
    let span = text.find(&quoted).map(|at| at..at + quoted.len());
    let accepted = match known.get(..SHOWN) {
        _ if known.is_empty() => format!("nothing: this file defines no [{kind}.NAME]"),
        Some(first) if known.len() > SHOWN => {
            format!("{} and {} more", first.join(", "), known.len() - SHOWN)
        }
        Some(_) | None => known.join(", "),
    };
    Complaint {
        kind: Mistake::UnknownName,
        span,
        problem: format!("there is no {kind} {literal:?}"),
        accepted: Some(accepted),
        help: nearest(literal, known.iter().copied()).map(|near| format!("did you mean {near}?")),
    }
}

/// Whether an expression holds, by Cedar alone; `None` if one of `names` is not known or Cedar fails.
pub(super) fn holds<'k, 'n>(
    text: &str,
    names: impl Iterator<Item = &'n Name>,
    knowing: &Knowing<'_, 'k>,
) -> Option<bool> {
    let (mut context, mut device) = (Vec::new(), HashMap::new());
    for name in names {
        let value = expression(knowing(name)?);
        let written = name.to_string();
        match name {
            Name::Attribute(attribute) => context.push((attribute.clone(), value)),
            Name::Weekday => context.push(("weekday".to_owned(), value)),
            Name::Minute => context.push(("minute".to_owned(), value)),
            Name::Device | Name::User | Name::Groups | Name::Tags => {
                let attribute = written.split_once('.').map_or("", |(_, attribute)| attribute);
                device.insert(attribute.to_owned(), value);
            }
        }
    }
    let uid = |text: &str| text.parse::<EntityUid>().ok();
    let who = uid("Device::\"who\"")?;
    let entity = Entity::new(who.clone(), device, HashSet::new()).ok()?;
    let entities = Entities::from_entities([entity], None).ok()?;
    let context = Context::from_pairs(context).ok()?;
    let (action, resource) = (uid("Action::\"open\"")?, uid("Endpoint::\"any\"")?);
    let request = Request::new(who, action, resource, context, None).ok()?;
    let result = eval_expression(&request, &entities, &text.parse().ok()?);
    if let Ok(EvalResult::Bool(holds)) = result { Some(holds) } else { None }
}

fn expression(known: Known<'_>) -> RestrictedExpression {
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    match known {
        Known::Bool(value) => RestrictedExpression::new_bool(value),
        Known::Int(value) => RestrictedExpression::new_long(value),
        Known::Text(value) => text(value),
        Known::Texts(values) => RestrictedExpression::new_set(values.iter().map(|item| text(item))),
    }
}
