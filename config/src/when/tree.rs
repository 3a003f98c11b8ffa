//! The tree of an expression, and its value.
//!
//! Only what a condition can use is in it: no entities, no records, no functions of extensions. It is
//! made of the JSON form that Cedar publishes for exchange, so nothing here depends on how Cedar keeps
//! its own tree.

use core::fmt;
use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::{Knowing, Known, Name};

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Expr {
    Bool(bool),
    Int(i64),
    Text(String),
    Name(Name),
    Set(Vec<Self>),
    Unary(Unary, Box<Self>),
    Binary(Binary, Box<Self>, Box<Self>),
    Like(Box<Self>, Vec<Glyph>),
    If(Box<Self>, Box<Self>, Box<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Unary {
    Not,
    Minus,
    IsEmpty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Binary {
    And,
    Or,
    Equal,
    NotEqual,
    Below,
    AtMost,
    Above,
    AtLeast,
    Plus,
    Minus,
    Times,
    Contains,
    ContainsAll,
    ContainsAny,
}

const BINARY: &[(&str, Binary)] = &[
    ("&&", Binary::And),
    ("||", Binary::Or),
    ("==", Binary::Equal),
    ("!=", Binary::NotEqual),
    ("<", Binary::Below),
    ("<=", Binary::AtMost),
    (">", Binary::Above),
    (">=", Binary::AtLeast),
    ("+", Binary::Plus),
    ("-", Binary::Minus),
    ("*", Binary::Times),
    ("contains", Binary::Contains),
    ("containsAll", Binary::ContainsAll),
    ("containsAny", Binary::ContainsAny),
];

impl Binary {
    fn written(self) -> &'static str {
        BINARY.iter().find(|(_, binary)| *binary == self).map_or("", |(written, _)| written)
    }

    const fn tightness(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => AND,
            Self::Equal
            | Self::NotEqual
            | Self::Below
            | Self::AtMost
            | Self::Above
            | Self::AtLeast => COMPARISON,
            Self::Plus | Self::Minus => 4,
            Self::Times => 5,
            Self::Contains | Self::ContainsAll | Self::ContainsAny => ALONE,
        }
    }
}

/// See [`Expr::tightness`].
pub(super) const AND: u8 = 2;
const COMPARISON: u8 = 3;
const SIGN: u8 = 6;
const ALONE: u8 = 7;

/// A piece of a pattern: some text, or anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Glyph {
    Anything,
    Text(String),
}

/// Why the JSON of an expression is none of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It uses a word or sign of the language that conditions have no use for.
    Construct(String),
    /// There is no such name: variable and attribute.
    Name(String, String),
    /// It is not what Cedar writes.
    Json,
}

/// A value under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Datum<'k> {
    Bool(bool),
    Int(i64),
    Text(&'k str),
    Set(BTreeSet<Self>),
}

impl Expr {
    /// Of Cedar's JSON.
    pub(super) fn of(json: &Json) -> Result<Self, Refused> {
        let (key, inner) =
            json.as_object().and_then(|object| object.iter().next()).ok_or(Refused::Json)?;
        let child = |name: &str| inner.get(name).ok_or(Refused::Json).and_then(Self::of);
        let boxed = |name: &str| child(name).map(Box::new);
        if let Some((_, binary)) = BINARY.iter().find(|(written, _)| *written == key) {
            return Ok(Self::Binary(*binary, boxed("left")?, boxed("right")?));
        }
        match key.as_str() {
            "Value" => Self::literal(inner),
            "Var" => Err(Refused::Construct(inner.as_str().unwrap_or("").to_owned())),
            "." => {
                let left =
                    inner.get("left").and_then(|left| left.get("Var")).and_then(Json::as_str);
                let attribute = inner.get("attr").and_then(Json::as_str).ok_or(Refused::Json)?;
                let variable = left.ok_or_else(|| Refused::Construct(format!(".{attribute}")))?;
                name(variable, attribute).map(Self::Name)
            }
            "!" => Ok(Self::Unary(Unary::Not, boxed("arg")?)),
            "isEmpty" => Ok(Self::Unary(Unary::IsEmpty, boxed("arg")?)),
            "neg" => {
                let child = child("arg")?;
                // `-5` is a number, however Cedar writes it.
                if let Self::Int(number @ 0..) = child {
                    return Ok(Self::Int(-number));
                }
                Ok(Self::Unary(Unary::Minus, Box::new(child)))
            }
            "Set" => {
                let items = inner.as_array().ok_or(Refused::Json)?;
                items.iter().map(Self::of).collect::<Result<_, _>>().map(Self::Set)
            }
            "like" => {
                let pattern = inner.get("pattern").and_then(Json::as_array).ok_or(Refused::Json)?;
                let glyphs = pattern.iter().map(glyph).collect::<Option<_>>();
                Ok(Self::Like(boxed("left")?, glyphs.ok_or(Refused::Json)?))
            }
            "if-then-else" => Ok(Self::If(boxed("if")?, boxed("then")?, boxed("else")?)),
            other => Err(Refused::Construct(other.to_owned())),
        }
    }

    fn literal(json: &Json) -> Result<Self, Refused> {
        match json {
            Json::Bool(value) => Ok(Self::Bool(*value)),
            Json::Number(number) => number.as_i64().map(Self::Int).ok_or(Refused::Json),
            Json::String(text) => Ok(Self::Text(text.clone())),
            Json::Array(items) => {
                items.iter().map(Self::literal).collect::<Result<_, _>>().map(Self::Set)
            }
            Json::Object(_) => Err(Refused::Construct("::".to_owned())),
            Json::Null => Err(Refused::Json),
        }
    }

    /// What is joined by `&&` at the outside.
    pub(super) fn conjuncts(self) -> Vec<Self> {
        let mut found = Vec::new();
        let mut left = vec![self];
        while let Some(expr) = left.pop() {
            if let Self::Binary(Binary::And, first, second) = expr {
                left.extend([*second, *first]);
            } else {
                found.push(expr);
            }
        }
        found
    }

    /// Calls `visit` for this expression and everything inside.
    pub(super) fn walk<'e>(&'e self, visit: &mut dyn FnMut(&'e Self)) {
        visit(self);
        self.children().into_iter().for_each(|child| child.walk(visit));
    }

    fn children(&self) -> Vec<&Self> {
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Text(_) | Self::Name(_) => Vec::new(),
            Self::Set(items) => items.iter().collect(),
            Self::Unary(_, child) | Self::Like(child, _) => vec![child],
            Self::Binary(_, left, right) => vec![left, right],
            Self::If(test, yes, no) => vec![test, yes, no],
        }
    }

    pub(super) fn names(&self) -> BTreeSet<Name> {
        let mut names = BTreeSet::new();
        self.walk(&mut |expr| {
            if let Self::Name(name) = expr {
                names.insert(name.clone());
            }
        });
        names
    }

    /// Gathers the minutes at which a comparison with `context.minute` turns around; false if the
    /// minute is used in another way than in comparisons with a number.
    pub(super) fn minutes(&self, found: &mut BTreeSet<u16>) -> bool {
        use Binary::{Above, AtLeast, AtMost, Below, Equal, NotEqual};
        if let Self::Binary(Equal | NotEqual | Below | AtMost | Above | AtLeast, left, right) = self
            && let (Self::Int(number), Self::Name(Name::Minute))
            | (Self::Name(Name::Minute), Self::Int(number)) = (&**left, &**right)
        {
            // It may turn at the number itself, and right after it.
            let turns = [*number, number.saturating_add(1)];
            found.extend(turns.iter().filter_map(|at| u16::try_from(*at).ok()));
            found.retain(|at| *at <= 24 * 60);
            return true;
        }
        *self != Self::Name(Name::Minute)
            && self.children().into_iter().all(|child| child.minutes(found))
    }

    /// The value; `None` where Cedar would fail.
    pub(super) fn evaluate<'k>(&'k self, knowing: &Knowing<'_, 'k>) -> Option<Datum<'k>> {
        let value = |expr: &'k Self| expr.evaluate(knowing);
        let bool_of = |expr: &'k Self| match expr.evaluate(knowing)? {
            Datum::Bool(value) => Some(value),
            Datum::Int(_) | Datum::Text(_) | Datum::Set(_) => None,
        };
        match self {
            Self::Bool(value) => Some(Datum::Bool(*value)),
            Self::Int(value) => Some(Datum::Int(*value)),
            Self::Text(value) => Some(Datum::Text(value)),
            Self::Name(name) => knowing(name).map(Datum::from),
            Self::Set(items) => items.iter().map(value).collect::<Option<_>>().map(Datum::Set),
            Self::Unary(unary, child) => unary_value(*unary, value(child)?),
            Self::Binary(Binary::And, left, right) => {
                Some(Datum::Bool(bool_of(left)? && bool_of(right)?))
            }
            Self::Binary(Binary::Or, left, right) => {
                Some(Datum::Bool(bool_of(left)? || bool_of(right)?))
            }
            Self::Binary(binary, left, right) => binary_value(*binary, value(left)?, value(right)?),
            Self::Like(child, glyphs) => match value(child)? {
                Datum::Text(text) => Some(Datum::Bool(like(text, glyphs))),
                Datum::Bool(_) | Datum::Int(_) | Datum::Set(_) => None,
            },
            Self::If(test, yes, no) => value(if bool_of(test)? { yes } else { no }),
        }
    }

    /// How tightly it binds, as Cedar's grammar has it: from `if` to what stands by itself.
    pub(super) fn tightness(&self) -> u8 {
        match self {
            Self::If(..) => 0,
            Self::Binary(binary, ..) => binary.tightness(),
            Self::Like(..) => COMPARISON,
            Self::Unary(Unary::Not | Unary::Minus, _) => SIGN,
            Self::Int(number) if *number < 0 => SIGN,
            Self::Bool(_)
            | Self::Int(_)
            | Self::Text(_)
            | Self::Name(_)
            | Self::Set(_)
            | Self::Unary(Unary::IsEmpty, _) => ALONE,
        }
    }
}

/// What stands under an attribute of a variable.
fn name(variable: &str, attribute: &str) -> Result<Name, Refused> {
    match (variable, attribute) {
        ("context", "weekday") => Ok(Name::Weekday),
        ("context", "minute") => Ok(Name::Minute),
        ("context", attribute) => Ok(Name::Attribute(attribute.to_owned())),
        ("principal", "name") => Ok(Name::Device),
        ("principal", "user") => Ok(Name::User),
        ("principal", "groups") => Ok(Name::Groups),
        ("principal", "tags") => Ok(Name::Tags),
        ("principal", other) => Err(Refused::Name(variable.to_owned(), other.to_owned())),
        (other, _) => Err(Refused::Construct(other.to_owned())),
    }
}

fn glyph(json: &Json) -> Option<Glyph> {
    match json {
        Json::String(word) if word == "Wildcard" => Some(Glyph::Anything),
        Json::Object(_) => json.get("Literal")?.as_str().map(|text| Glyph::Text(text.to_owned())),
        Json::String(_) | Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) => None,
    }
}

fn unary_value(unary: Unary, value: Datum<'_>) -> Option<Datum<'_>> {
    match (unary, value) {
        (Unary::Not, Datum::Bool(value)) => Some(Datum::Bool(!value)),
        (Unary::Minus, Datum::Int(value)) => value.checked_neg().map(Datum::Int),
        (Unary::IsEmpty, Datum::Set(items)) => Some(Datum::Bool(items.is_empty())),
        (_, _) => None,
    }
}

fn binary_value<'k>(binary: Binary, left: Datum<'k>, right: Datum<'k>) -> Option<Datum<'k>> {
    use Datum::{Bool, Int, Set};
    match (binary, left, right) {
        (Binary::Equal, left, right) => Some(Bool(left == right)),
        (Binary::NotEqual, left, right) => Some(Bool(left != right)),
        (Binary::Below, Int(left), Int(right)) => Some(Bool(left < right)),
        (Binary::AtMost, Int(left), Int(right)) => Some(Bool(left <= right)),
        (Binary::Above, Int(left), Int(right)) => Some(Bool(left > right)),
        (Binary::AtLeast, Int(left), Int(right)) => Some(Bool(left >= right)),
        (Binary::Plus, Int(left), Int(right)) => left.checked_add(right).map(Int),
        (Binary::Minus, Int(left), Int(right)) => left.checked_sub(right).map(Int),
        (Binary::Times, Int(left), Int(right)) => left.checked_mul(right).map(Int),
        (Binary::Contains, Set(items), item) => Some(Bool(items.contains(&item))),
        (Binary::ContainsAll, Set(items), Set(all)) => Some(Bool(items.is_superset(&all))),
        (Binary::ContainsAny, Set(items), Set(any)) => Some(Bool(!items.is_disjoint(&any))),
        (_, _, _) => None,
    }
}

/// Whether a text is as a pattern says. Each `*` takes as little as it can, and more when what
/// follows does not fit: the last one that was met is the only one that can help.
fn like(text: &str, glyphs: &[Glyph]) -> bool {
    let text: Vec<char> = text.chars().collect();
    let pattern: Vec<Option<char>> = glyphs
        .iter()
        .flat_map(|glyph| match glyph {
            Glyph::Anything => vec![None],
            Glyph::Text(text) => text.chars().map(Some).collect(),
        })
        .collect();
    let (mut at, mut next) = (0, 0);
    // Behind the last `*`, and how far it reached.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = text.get(at) {
        match pattern.get(next) {
            Some(None) => {
                next += 1;
                star = Some((next, at));
            }
            Some(Some(wanted)) if wanted == c => (at, next) = (at + 1, next + 1),
            Some(Some(_)) | None => match star {
                Some((behind, reached)) => {
                    star = Some((behind, reached + 1));
                    (at, next) = (reached + 1, behind);
                }
                None => return false,
            },
        }
    }
    pattern.get(next..).is_some_and(|rest| rest.iter().all(Option::is_none))
}

impl<'k> From<Known<'k>> for Datum<'k> {
    fn from(known: Known<'k>) -> Self {
        match known {
            Known::Bool(value) => Self::Bool(value),
            Known::Int(value) => Self::Int(value),
            Known::Text(value) => Self::Text(value),
            Known::Texts(values) => Self::Set(values.iter().map(|text| Self::Text(text)).collect()),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "\"{}\"", text.escape_debug()),
            Self::Name(Name::Attribute(name)) if !is_word(name) => {
                write!(f, "context[\"{}\"]", name.escape_debug())
            }
            Self::Name(name) => write!(f, "{name}"),
            Self::Set(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Unary(Unary::Not, child) => write!(f, "!{}", Operand(child, ALONE)),
            Self::Unary(Unary::Minus, child) => write!(f, "-{}", Operand(child, ALONE)),
            Self::Unary(Unary::IsEmpty, child) => write!(f, "{}.isEmpty()", Operand(child, ALONE)),
            Self::Binary(binary, left, right) => {
                let (tightness, sign) = (binary.tightness(), binary.written());
                match tightness {
                    ALONE => write!(f, "{}.{sign}({right})", Operand(left, ALONE)),
                    // Comparisons cannot be chained; all others are read from the left.
                    COMPARISON => write!(
                        f,
                        "{} {sign} {}",
                        Operand(left, COMPARISON + 1),
                        Operand(right, COMPARISON + 1)
                    ),
                    _ => write!(
                        f,
                        "{} {sign} {}",
                        Operand(left, tightness),
                        Operand(right, tightness + 1)
                    ),
                }
            }
            Self::Like(child, glyphs) => {
                write!(f, "{} like \"", Operand(child, COMPARISON + 1))?;
                for glyph in glyphs {
                    match glyph {
                        Glyph::Anything => f.write_str("*")?,
                        Glyph::Text(text) => {
                            write!(f, "{}", text.escape_debug().to_string().replace('*', "\\*"))?;
                        }
                    }
                }
                f.write_str("\"")
            }
            Self::If(test, yes, no) => write!(f, "if {test} then {yes} else {no}"),
        }
    }
}

/// An expression beside an operator, which binds so tightly.
struct Operand<'e>(&'e Expr, u8);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(expr, least) = self;
        if expr.tightness() >= *least { expr.fmt(f) } else { write!(f, "({expr})") }
    }
}

/// Whether Cedar takes it as a name behind a dot.
fn is_word(name: &str) -> bool {
    const RESERVED: &[&str] =
        &["true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"];
    !RESERVED.contains(&name)
}
