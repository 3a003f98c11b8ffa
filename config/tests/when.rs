//! `when`: what is read, what is refused with the caret at the mistake, and two evaluations that agree.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic, and its numbers are small"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;

use bulkhead_config::{
    Config, ConfigErrors, KeyFileError, KeySource, Known, Name, Part, Secret, When,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config as RunnerConfig, TestRunner};

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
    }
}

const BEFORE: &str = r#"schema = 1
[port.a]
device = "eth0"
[wireguard.wg0]
port = "a"
private_key_file = "gw.key"
[user.anna]
[tag.managed]
[group.hr]
members = ["user:anna"]
[group.ops]
members = []
[device.one]
user = "anna"
public_key = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM="
addresses = ["10.44.0.1/32"]
[attribute.floor]
type = "text"
[attribute.if]
type = "bool"
[[rule]]
id = "web"
from = ["any"]
to = ["any"]
services = ["any"]
"#;

fn parse(line: &str) -> Result<Config, ConfigErrors> {
    Config::parse_with("bulkhead.toml", &format!("{BEFORE}{line}\n"), &AnyKey)
}

fn when(text: &str) -> When {
    let config = parse(&format!("when = '''{text}'''"));
    let mut config = config.unwrap_or_else(|errors| panic!("{errors}"));
    config.rules.remove(0).condition.when.unwrap()
}

#[test]
fn an_expression_is_split_at_its_outermost_ands_and_written_in_one_way() {
    for (text, want) in [
        ("context.risk<50", "context.risk < 50"),
        ("(context.risk < 50)&& !context.managed", "context.risk < 50 | !context.managed"),
        (
            "context.risk < 50 && (context.managed || context.screen_lock)",
            "context.risk < 50 | (context.managed || context.screen_lock)",
        ),
        ("context.risk - 5 < -(context.tier * 2)", "context.risk - 5 < -(context.tier * 2)"),
        ("context.tier >= -9223372036854775808", "context.tier >= -9223372036854775808"),
        ("context[\"if\"]", "context[\"if\"]"),
        ("context.tier - (1 - 2) - 3 == 0", "context.tier - (1 - 2) - 3 == 0"),
        ("!!context.managed || (true || (true))", "(!(!context.managed) || (true || true))"),
        ("context.floor like \"3\\*\\\"*\"", "context.floor like \"3\\*\\\"*\""),
        ("principal.tags.contains(\"managed\")", "principal.tags.contains(\"managed\")"),
        ("[1, 2].containsAny([context.tier])", "[1, 2].containsAny([context.tier])"),
        ("// why\n!(principal.groups.isEmpty())", "!principal.groups.isEmpty()"),
        (
            "if context.managed then context.tier > 1 else false",
            "(if context.managed then context.tier > 1 else false)",
        ),
    ] {
        let found = when(text);
        let parts: Vec<_> = found.parts().iter().map(ToString::to_string).collect();
        assert_eq!(parts.join(" | "), want, "{text}");
        // What is written is read as the same.
        assert_eq!(when(&found.to_string()), found, "{text}");
    }
    assert_eq!(when("context . risk\n<\n50"), when("context.risk < 50"));
    assert_ne!(when("context.risk < 50"), when("context.risk < 51"));
}

/// Each line of the file, and what is said of it: place, problem, and what the caret is under.
#[test]
fn a_mistake_in_an_expression_is_shown_at_its_place_in_the_file() {
    let mut different = Vec::new();
    for (line, want) in [
        (
            "when = 'context.rsk < 50'",
            "26:9 there is no context.rsk |context.rsk| did you mean context.risk?",
        ),
        (
            "when = 'context.managed && principal.usr == \"anna\"'",
            "26:28 there is no principal.usr |principal.usr| did you mean principal.user?",
        ),
        (
            "when = 'context.managed && context.risk'",
            "26:28 expected true or false but saw a whole number |context.risk| -",
        ),
        (
            "when = 'context.risk < \"high\"'",
            "26:24 expected a whole number but saw a text |\"high\"| -",
        ),
        (
            "when = 'context.managed and context.risk < 50'",
            "26:25 unexpected token `and` |and| write && for and",
        ),
        (
            "when = 'principal.groups.contains(\"hrr\")'",
            "26:35 there is no group \"hrr\" |\"hrr\"| did you mean hr?",
        ),
        (
            "when = '\"anne\" == principal.user'",
            "26:9 there is no user \"anne\" |\"anne\"| did you mean anna?",
        ),
        (
            "when = 'principal.tags.containsAll([\"managed\", \"lost\"])'",
            "26:48 there is no tag \"lost\" |\"lost\"| -",
        ),
        (
            "when = 'context has risk && context.risk < 50'",
            "26:17 has has no use here |has| what is not known never makes a condition hold; name it as if it were",
        ),
        (
            "when = 'principal in Group::\"hr\"'",
            "26:19 in has no use here |in| write principal.groups.contains(\"NAME\") for who is in a group",
        ),
        (
            "when = 'context.floor == \"resource\" && resource == resource'",
            "26:40 resource has no use here |resource| a condition is about the one who asks, and about the time",
        ),
        ("when = '{ a: 1 }.a == 1'", "26:17 .a has no use here |.a| -"),
        ("when = 'false'", "26:8 it never holds, whatever is known |'false'| -"),
        ("when = ''", "26:8 empty |''| -"),
        ("when = 1", "26:8 wrong type |1| -"),
        ("when = 'true } unless { false'", "26:14 unexpected token `}` |}| -"),
        ("when = 'context.risk <'", "26:23 unexpected end of input |'| -"),
        ("when = 'ip(\"10.0.0.1\").isIpv4()'", "26:24 isIpv4 has no use here |isIpv4| -"),
        // Escapes move what follows, so all of the text is the place.
        (
            "when = \"context.floor == \\\"3\\\" && context.rsk\"",
            "26:8 there is no context.rsk |\"context.floor == \\\"3\\\" && context.rsk\"| did you mean context.risk?",
        ),
        (
            "when = \"context.rsk\"",
            "26:9 there is no context.rsk |context.rsk| did you mean context.risk?",
        ),
        (
            "when = '''\n  context.managed\n  && context.rsk\n'''",
            "28:6 there is no context.rsk |context.rsk| did you mean context.risk?",
        ),
    ] {
        let errors = parse(line).expect_err(line);
        assert_eq!(errors.list().len(), 1, "{errors}");
        let error = &errors.list()[0];
        let shown: String = error
            .source_line
            .as_deref()
            .unwrap_or("")
            .chars()
            .skip(error.indent as usize)
            .take(error.width as usize)
            .collect();
        let found = format!(
            "{}:{} {} |{shown}| {}",
            error.line,
            error.column,
            error.problem,
            error.help.as_deref().unwrap_or("-")
        );
        if found != want {
            different.push(format!("{found}\n{want}\n"));
        }
        assert_eq!(error.key, "rule.web.when");
    }
    assert!(different.is_empty(), "found and wanted:\n{}", different.join("\n"));
}

#[test]
fn an_expression_is_bounded_in_length_and_depth() {
    let terms = |count: usize| vec!["context.managed"; count].join("&&");
    // 2,048 bytes: 120 terms are 2,038.
    assert!(parse(&format!("when = '{}          '", terms(120))).is_ok());
    let errors = parse(&format!("when = '{}           '", terms(120))).unwrap_err();
    assert_eq!(errors.list()[0].problem, "the expression has 2049 bytes; at most 2048");
    let nested = |depth: usize| {
        parse(&format!("when = '{}context.managed{}'", "(".repeat(depth), ")".repeat(depth)))
    };
    assert!(nested(32).is_ok());
    let errors = nested(33).unwrap_err();
    assert_eq!(errors.list()[0].problem, "brackets in 33 brackets; at most 32");
    assert!(parse(&format!("when = 'context.floor == \"{}\"'", "(".repeat(40))).is_ok());
}

#[test]
fn what_depends_on_the_minute_says_at_which_ones() {
    let minutes = |text: &str| when(text).parts()[0].minutes().map(|all| all.into_iter().collect());
    for (text, want) in [
        ("context.minute >= 420", Some(vec![420, 421])),
        ("!(1140 < context.minute) || context.minute == 0", Some(vec![0, 1, 1_140, 1_141])),
        ("context.minute > -1 || context.minute < 9000", Some(vec![0])),
        ("context.weekday < 6", Some(vec![])),
        ("context.minute + 5 > 420", None),
        ("[420, 421].contains(context.minute)", None),
        ("context.minute > context.tier", None),
    ] {
        assert_eq!(minutes(text), want, "{text}");
    }
}

/// What is known in the tests below: of each name, or not.
type World = BTreeMap<Name, Option<Is>>;

#[derive(Clone, Debug)]
enum Is {
    Bool(bool),
    Int(i64),
    Text(String),
    Texts(Vec<String>),
}

fn knowing<'w>(world: &'w World) -> impl Fn(&Name) -> Option<Known<'w>> {
    move |name| {
        world.get(name)?.as_ref().map(|is| match is {
            Is::Bool(value) => Known::Bool(*value),
            Is::Int(value) => Known::Int(*value),
            Is::Text(text) => Known::Text(text),
            Is::Texts(texts) => Known::Texts(texts),
        })
    }
}

#[test]
fn what_is_not_known_is_never_true_not_even_when_it_is_denied() {
    let (risk, lock) =
        (Name::Attribute("risk".to_owned()), Name::Attribute("screen_lock".to_owned()));
    let world: World = [(risk, Some(Is::Int(10)))].into_iter().collect();
    let known: World = world.clone().into_iter().chain([(lock, Some(Is::Bool(false)))]).collect();
    for (text, without, with) in [
        ("context.screen_lock", None, Some(false)),
        ("!context.screen_lock", None, Some(true)),
        ("context.risk < 50 || context.screen_lock", None, Some(true)),
        ("context.screen_lock || context.risk < 50", None, Some(true)),
        ("context.risk < 5 || !context.screen_lock", None, Some(true)),
        ("if context.risk < 50 then true else context.screen_lock", None, Some(true)),
        ("context.screen_lock == context.screen_lock", None, Some(true)),
        ("context.risk < 50", Some(true), Some(true)),
        // A number beyond 64 bits is none.
        ("context.risk * 9223372036854775807 > 0", None, None),
        ("context.risk < 50 || context.risk * 9223372036854775807 > 0", Some(true), Some(true)),
    ] {
        let when = when(text);
        let part = &when.parts()[0];
        for (world, want) in [(&world, without), (&known, with)] {
            assert_eq!(part.holds(&knowing(world)), want, "{text}");
            assert_eq!(part.holds_by_cedar(&knowing(world)), want, "{text}");
        }
    }
}

fn int() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        4 => select(vec!["context.risk", "context.tier", "context.patch_age_days", "context.weekday", "context.minute"])
            .prop_map(str::to_owned),
        3 => (-3i64..4).prop_map(|number| number.to_string()),
        1 => select(vec![i64::MAX, i64::MIN]).prop_map(|number| number.to_string()),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            (inner.clone(), select(vec!["+", "-", "*"]), inner.clone())
                .prop_map(|(a, op, b)| format!("(({a}) {op} ({b}))")),
            inner.prop_map(|a| format!("(-({a}))")),
        ]
    })
    .boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        Just("context.floor".to_owned()),
        select(vec!["", "3", "3b", "*", "a\\\"b", "\\u{e9}"])
            .prop_map(|text| format!("\"{text}\"")),
    ]
    .boxed()
}

fn comparison() -> BoxedStrategy<String> {
    let who = select(vec![
        "principal.user == \"anna\"",
        "principal.user != \"anna\"",
        "principal.name == \"one\"",
        "principal.groups.contains(\"hr\")",
        "principal.groups.containsAll([\"hr\", \"ops\"])",
        "principal.groups.containsAny([\"ops\"])",
        "principal.tags.isEmpty()",
        "principal.tags == [\"managed\", \"managed\"]",
        "[\"anna\"].contains(principal.user)",
    ]);
    prop_oneof![
        select(vec!["context.managed", "context.screen_lock", "context[\"if\"]", "true"])
            .prop_map(str::to_owned),
        (int(), select(vec!["==", "!=", "<", "<=", ">", ">="]), int())
            .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        (text(), select(vec!["==", "!="]), text()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        (text(), select(vec!["*", "3*", "*b", "?", "*3*b*", "\\*", ""]))
            .prop_map(|(a, pattern)| format!("({a} like \"{pattern}\")")),
        (prop::collection::vec(int(), 1..3), int())
            .prop_map(|(set, a)| format!("[{}].contains({a})", set.join(", "))),
        who.prop_map(str::to_owned),
    ]
    .boxed()
}

fn expression() -> BoxedStrategy<String> {
    comparison()
        .prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                3 => (inner.clone(), select(vec!["&&", "||"]), inner.clone())
                    .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
                2 => inner.clone().prop_map(|a| format!("!({a})")),
                1 => (inner.clone(), inner.clone(), inner)
                    .prop_map(|(a, b, c)| format!("(if {a} then {b} else {c})")),
            ]
        })
        .boxed()
}

fn world() -> impl Strategy<Value = World> {
    let maybe = |is: BoxedStrategy<Is>| prop::option::weighted(0.95, is).boxed();
    let attribute = |name: &str| Name::Attribute(name.to_owned());
    let int = || maybe((-2i64..4).prop_map(Is::Int).boxed());
    let flag = || maybe(any::<bool>().prop_map(Is::Bool).boxed());
    let text = |all: &'static [&'static str]| {
        maybe(select(all).prop_map(|text| Is::Text(text.to_owned())).boxed())
    };
    let texts = |all: &'static [&'static str]| {
        let list = prop::sample::subsequence(all, 0..=all.len());
        let owned = |list: Vec<&str>| Is::Texts(list.into_iter().map(str::to_owned).collect());
        maybe(list.prop_map(owned).boxed())
    };
    vec![
        int().prop_map(move |is| (attribute("risk"), is)).boxed(),
        int().prop_map(move |is| (attribute("tier"), is)).boxed(),
        int().prop_map(move |is| (attribute("patch_age_days"), is)).boxed(),
        flag().prop_map(move |is| (attribute("managed"), is)).boxed(),
        flag().prop_map(move |is| (attribute("screen_lock"), is)).boxed(),
        flag().prop_map(move |is| (attribute("if"), is)).boxed(),
        text(&["", "3", "3b", "b3ab", "*", "é"])
            .prop_map(move |is| (attribute("floor"), is))
            .boxed(),
        int().prop_map(|is| (Name::Weekday, is)).boxed(),
        int().prop_map(|is| (Name::Minute, is)).boxed(),
        text(&["one"]).prop_map(|is| (Name::Device, is)).boxed(),
        text(&["anna", "bob"]).prop_map(|is| (Name::User, is)).boxed(),
        texts(&["hr", "ops"]).prop_map(|is| (Name::Groups, is)).boxed(),
        texts(&["managed"]).prop_map(|is| (Name::Tags, is)).boxed(),
    ]
    .prop_map(|all| all.into_iter().collect())
}

/// The parentheses keep Cedar from seeing that the two can never be equal; the printed form has none.
#[test]
fn what_never_holds_may_be_seen_only_as_it_is_printed() {
    let when = when("0 == (-(9223372036854775807)) && context.managed");
    let errors = parse(&format!("when = '''{when}'''")).unwrap_err();
    assert!(errors.list()[0].problem.contains("never holds"), "{errors}");
}

/// Our evaluation against Cedar's own, of the whole and of its parts.
#[test]
fn our_evaluation_and_cedars_agree_and_every_outcome_is_met() {
    let met: RefCell<BTreeMap<Option<bool>, u32>> = RefCell::default();
    let refused = RefCell::new(0);
    let mut runner = TestRunner::new(RunnerConfig::with_cases(1_000));
    let result =
        runner.run(&(expression(), prop::collection::vec(world(), 4)), |(text, worlds)| {
            // Cedar finds some of them impossible; nothing else is wrong with any.
            let config = match parse(&format!("when = '''{text}'''")) {
                Ok(config) => config,
                Err(errors) => {
                    let impossible = errors.list()[0].problem.contains("never holds");
                    prop_assert!(impossible, "{}", errors);
                    *refused.borrow_mut() += 1;
                    return Ok(());
                }
            };
            let when = config.rules[0].condition.when.clone().unwrap();
            // What is printed reads as the same. Only, without its parentheses `-(1)` is a literal, and
            // of literals Cedar sees when they can never be equal.
            match parse(&format!("when = '''{when}'''")) {
                Ok(config) => prop_assert_eq!(config.rules[0].condition.when.as_ref(), Some(&when)),
                Err(errors) => {
                    prop_assert!(errors.list()[0].problem.contains("never holds"), "{}", errors);
                    *refused.borrow_mut() += 1;
                    for world in &worlds {
                        let holds = |part: &Part| Part::holds(part, &knowing(world)) == Some(true);
                        prop_assert!(!when.parts().iter().all(holds), "{} in {:?}", when, world);
                    }
                }
            }
            for world in &worlds {
                for part in when.parts() {
                    let ours = Part::holds(part, &knowing(world));
                    let theirs = part.holds_by_cedar(&knowing(world));
                    prop_assert_eq!(ours, theirs, "{} in {:?}", part, world);
                    *met.borrow_mut().entry(ours).or_default() += 1;
                }
            }
            Ok(())
        });
    if let Err(error) = result {
        panic!("{error}");
    }
    let met = met.into_inner();
    assert_eq!(met.len(), 3, "{met:?}");
    assert!(met.values().all(|count| *count > 300), "{met:?}");
    assert!(refused.into_inner() < 200);
}
