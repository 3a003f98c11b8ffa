//! `[group]`: sets of endpoints, which may contain each other but not themselves.

use std::collections::BTreeMap;

use toml::de::DeTable;

use crate::error::Mistake;
use crate::limits::GROUP_DEPTH_MAX;
use crate::reader::{At, Reader};
use crate::selector::{self, Accepted, Kind};
use crate::source::Span;
use crate::{Group, keys};

pub(super) fn groups<'a>(reader: &mut Reader<'a>, root: &'a DeTable<'a>) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut inner: Nesting<'a> = BTreeMap::new();
    for section in reader.named(root, "group", keys::GROUP) {
        // An empty group is the normal beginning and end of one.
        section.require(reader, "members", "a list of \"user:NAME\", \"device:NAME\" and the like");
        let members = section.texts(reader, "members");
        let of_group = |text: &At<&'a str>| {
            text.value.strip_prefix("group:").map(|name| (name, text.span.clone()))
        };
        inner.insert(section.name, members.iter().filter_map(of_group).collect());
        groups.push(Group {
            name: section.name.to_owned(),
            place: reader.place(&section.span),
            members: selector::all(
                reader,
                &section,
                "members",
                &members,
                Accepted::kinds(Kind::ALL),
            ),
        });
    }
    check_nesting(reader, &inner);
    groups
}

/// The groups in each group, and where they stand.
type Nesting<'a> = BTreeMap<&'a str, Vec<(&'a str, Span)>>;

/// One group on the way down, and which of its members comes next.
struct Step<'a> {
    name: &'a str,
    next: usize,
    /// The most groups below it, itself included, found so far.
    height: usize,
}

/// Reports each circle once, at the member that closes it, and nesting that is too deep.
///
/// The way down is kept by hand: a file could nest a million groups.
fn check_nesting<'a>(reader: &mut Reader<'a>, inner: &Nesting<'a>) {
    let mut heights: BTreeMap<&str, usize> = BTreeMap::new();
    for &start in inner.keys() {
        if heights.contains_key(start) {
            continue;
        }
        let mut way = vec![Step { name: start, next: 0, height: 1 }];
        let mut on_way = BTreeMap::from([(start, 0)]);
        while let Some(step) = way.last_mut() {
            let member = inner.get(step.name).and_then(|members| members.get(step.next));
            step.next += 1;
            let Some((name, span)) = member else {
                let Step { name, height, .. } = *step;
                heights.insert(name, height);
                on_way.remove(name);
                way.pop();
                if let Some(above) = way.last_mut() {
                    rise(reader, inner, above, height);
                }
                continue;
            };
            if let Some(height) = heights.get(name).copied() {
                rise(reader, inner, step, height);
            } else if let Some(begin) = on_way.get(name).copied() {
                let circle = way.get(begin..).unwrap_or_default().iter().map(|step| step.name);
                report_circle(reader, circle, name, span);
            } else if inner.contains_key(name) {
                on_way.insert(name, way.len());
                way.push(Step { name, next: 0, height: 1 });
            }
        }
    }
}

/// Counts a member of such a height, whose place is the one before the step's next.
fn rise<'a>(reader: &mut Reader<'a>, inner: &Nesting<'a>, above: &mut Step<'a>, height: usize) {
    let before = above.height;
    above.height = before.max(height + 1);
    // Once, where it goes over; the groups further up have the same depth below them.
    if above.height == GROUP_DEPTH_MAX + 1
        && before <= GROUP_DEPTH_MAX
        && let Some((_, span)) = inner
            .get(above.name)
            .and_then(|members| above.next.checked_sub(1).and_then(|at| members.get(at)))
    {
        let key = format!("group.{}.members", above.name);
        let error = reader
            .mistake(span, &key, Mistake::OutOfRange)
            .problem("groups are nested too deep")
            .accepted(format!("at most {GROUP_DEPTH_MAX} groups inside each other"));
        reader.report(error);
    }
}

fn report_circle<'a>(
    reader: &mut Reader<'a>,
    circle: impl Iterator<Item = &'a str> + Clone,
    name: &'a str,
    span: &Span,
) {
    let last = circle.clone().last().unwrap_or(name);
    let path: Vec<_> = circle.chain([name]).map(|name| format!("group:{name}")).collect();
    let error = reader
        .mistake(span, &format!("group.{last}.members"), Mistake::Conflict)
        .problem("the group contains itself")
        .found(path.join(" > "))
        .accepted("groups without a circle");
    reader.report(error);
}
