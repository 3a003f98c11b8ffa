//! What the hot stages call, read from the machine code of this very program.
//!
//! ```text
//!   objdump ─▶ functions and whom they call ─▶ everybody a stage can reach ─▶ those that are not ours
//! ```
//!
//! A stage that allocates, locks, panics, formats or reads a clock calls somebody for it. So whoever is not
//! ours stands in [`STAGES`] with the reason, or the check fails.

#![allow(clippy::print_stdout, reason = "a check for a terminal")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Somebody who may be called: how the name begins, and why.
type Allowed = (&'static str, &'static str);

/// The cipher, for both directions.
const CIPHER: [Allowed; 9] = [
    ("memcpy", "messages shorter than a vector"),
    ("memset", "lists of a batch"),
    ("std::sync::once_lock", "the back end is chosen once"),
    ("std_detect", "so is what the processor has"),
    ("ring::", "the library seals what is too few or too long for lanes"),
    ("ring_core", "the same, in its assembly"),
    (POINTER, "its table of functions"),
    (
        "core::panicking::panic_fmt",
        "the library's assertions, and split_at_mut of a chunk that is there",
    ),
    ("core::array", "lists of a group, where the compiler leaves their making by itself"),
];

/// The stages of nearly every packet.
const STAGES: [(&str, &[Allowed]); 6] = [
    ("steer::steer", &[]),
    ("open::open", &CIPHER),
    (
        "judge::judge",
        &[
            ("memset", "lists of a batch"),
            ("<std::sys::sync::mutex", "the registry, told of one packet in a hundred"),
            ("std::panicking::panic_count", "its lock asks whether a thread panics"),
            ("syscall", "its lock, when two workers meet"),
            ("<core::iter", "iterators that the compiler leaves by themselves"),
        ],
    ),
    ("route::route", &[("core::hash", "neighbours of a segment stand in a hash map")]),
    ("seal::seal", &CIPHER),
    ("emit::emit", &[]),
];

/// Holds every stage in the program at `path` to [`STAGES`], and prints what it found.
///
/// # Errors
///
/// Whoever is called and not allowed, with the function that does; or a tool that is not there.
pub fn check(path: &Path) -> Result<(), String> {
    let disassembly = said("objdump", &["-d", "-C", "--no-show-raw-insn"], path)?;
    let program = Program::of(&disassembly, &said("readelf", &["-rW"], path)?);
    let mut unwelcome = vec![];
    for (stage, allowed) in STAGES {
        let root = format!("bulkhead_engine::stage::{stage}");
        let found = program.strangers(&root)?;
        let welcome = |name: &str| allowed.iter().any(|(begin, _)| name.starts_with(begin));
        println!("{stage:12} calls {} functions that are not ours", found.len());
        for (name, by) in found.iter().filter(|(name, _)| !welcome(name)) {
            unwelcome.push(format!("{stage} calls {name}, in {by}"));
        }
    }
    if unwelcome.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\nA hot stage neither allocates nor panics. If the call is right, put it into \
         bench/src/calls.rs with the reason",
        unwelcome.join("\n")
    ))
}

fn said(tool: &str, arguments: &[&str], path: &Path) -> Result<String, String> {
    let output = Command::new(tool).args(arguments).arg(path).output();
    let output =
        output.map_err(|error| format!("{tool}: {error}; install the package `binutils`"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{tool}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Every function with everybody whom it calls.
struct Program(BTreeMap<String, BTreeSet<String>>);

/// A call through a pointer that the function was given.
const POINTER: &str = "a pointer";

impl Program {
    /// From what `objdump -d -C` and `readelf -rW` say.
    fn of(disassembly: &str, relocations: &str) -> Self {
        let headers = disassembly.lines().filter_map(header);
        let names: BTreeMap<u64, &str> = headers.collect();
        // Where the addresses of functions are kept, for calls that go through memory.
        let slots: BTreeMap<u64, &str> =
            relocations.lines().filter_map(|line| slot(line, &names)).collect();
        let mut functions = BTreeMap::<String, BTreeSet<String>>::new();
        let (mut current, mut taken) = ("", false);
        for line in disassembly.lines() {
            if let Some((_, name)) = header(line) {
                (current, taken) = (name, false);
                functions.entry(name.to_owned()).or_default();
                continue;
            }
            let callee = match slot_of(line).and_then(|at| slots.get(&at)) {
                // Also what is only loaded, to be called later through a register.
                Some(name) => {
                    taken = true;
                    Some(*name)
                }
                None => direct(line).or_else(|| through_pointer(line, taken)),
            };
            if let Some(callee) = callee.filter(|callee| *callee != current) {
                functions.entry(current.to_owned()).or_default().insert(callee.to_owned());
            }
        }
        Self(functions)
    }

    /// Whoever is not ours and can be reached from `root` through ours, with one who calls.
    fn strangers<'p>(&'p self, root: &'p str) -> Result<BTreeMap<&'p str, &'p str>, String> {
        if !self.0.contains_key(root) {
            return Err(format!("there is no function {root}: was it renamed, or inlined?"));
        }
        let (mut strangers, mut reached, mut next) = (BTreeMap::new(), BTreeSet::new(), vec![root]);
        while let Some(caller) = next.pop() {
            if !reached.insert(caller) {
                continue;
            }
            for callee in self.0.get(caller).into_iter().flatten() {
                if callee.contains("bulkhead_") {
                    next.push(callee);
                } else {
                    strangers.insert(callee.as_str(), caller);
                }
            }
        }
        Ok(strangers)
    }
}

/// `000000000004f0a0 <a::function>:`.
fn header(line: &str) -> Option<(u64, &str)> {
    let (address, name) = line.strip_suffix(">:")?.split_once(" <")?;
    Some((u64::from_str_radix(address, 16).ok()?, name))
}

/// `0df7f0  … R_X86_64_RELATIVE  4f0a0` or `0df6e8  … R_X86_64_GLOB_DAT  0000 memset@GLIBC_2.2.5 + 0`.
fn slot<'t>(line: &'t str, names: &BTreeMap<u64, &'t str>) -> Option<(u64, &'t str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = u64::from_str_radix(words.first()?, 16).ok()?;
    let name = match *words.get(2)? {
        "R_X86_64_RELATIVE" => names.get(&u64::from_str_radix(words.get(3)?, 16).ok()?)?,
        "R_X86_64_GLOB_DAT" | "R_X86_64_JUMP_SLOT" => words.get(4)?.split('@').next()?,
        _ => return None,
    };
    Some((at, name))
}

/// The address behind `…(%rip)        # df6e8 <…>`.
fn slot_of(line: &str) -> Option<u64> {
    let (_, comment) = line.split_once("(%rip)")?.1.split_once("# ")?;
    u64::from_str_radix(comment.split_whitespace().next()?, 16).ok()
}

/// `call 48b80 <a::function>`, and a jump to the beginning of another function.
fn direct(line: &str) -> Option<&str> {
    let (instruction, target) = line.split_once('\t')?.1.split_once(' ')?;
    let name = target.trim_start().split_once(" <")?.1.strip_suffix('>')?;
    match instruction {
        "call" => Some(name.split("+0x").next()?),
        "jmp" if !name.contains("+0x") => Some(name),
        _ => None,
    }
}

/// `call *%rbx` of what was loaded before, if that was seen, and `call *0x18(%rcx)`.
fn through_pointer(line: &str, taken: bool) -> Option<&'static str> {
    let target = line.split_once("\tcall ")?.1.trim_start();
    let register = target.starts_with("*%");
    (target.starts_with('*') && !(register && taken)).then_some(POINTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISASSEMBLY: &str = "\
0000000000001000 <bulkhead_engine::stage::open::open>:
    1000:\tpush   %rbp
    1001:\tcall   2000 <bulkhead_wire::plain::read>
    1006:\tjne    1000 <bulkhead_engine::stage::open::open>
    1008:\tmov    0x88488(%rip),%rbx        # df6e8 <memset@GLIBC_2.2.5>
    100f:\tcall   *%rbx
    1011:\tjmp    1001 <bulkhead_engine::stage::open::open+0x1>

0000000000002000 <bulkhead_wire::plain::read>:
    2000:\tcall   *0x882e1(%rip)        # df7f8 <_DYNAMIC+0x328>
    2006:\tjmp    4000 <core::panicking::panic_fmt>

0000000000003000 <alloc::raw_vec::RawVec<T,A>::grow_one>:
    3000:\tcall   5000 <__rust_alloc>

0000000000004000 <core::panicking::panic_fmt>:
    4000:\tud2

0000000000006000 <bulkhead_engine::stage::emit::emit>:
    6000:\tcall   *%rax
    6002:\tjmp    *%rcx
    6004:\tcall   *0x18(%rcx)
";

    const RELOCATIONS: &str = "\
  Offset          Info           Type           Symbol's Value  Symbol's Name + Addend
00000000000df6e8  0000000600000006 R_X86_64_GLOB_DAT 0000000000000000 memset@GLIBC_2.2.5 + 0
00000000000df7f8  0000000000000008 R_X86_64_RELATIVE                    3000
00000000000df800  0000000000000008 R_X86_64_RELATIVE                    99
";

    #[test]
    fn whoever_is_called_in_any_way_is_found_with_the_caller() {
        let program = Program::of(DISASSEMBLY, RELOCATIONS);
        let [open, read] = ["bulkhead_engine::stage::open::open", "bulkhead_wire::plain::read"];
        let found: Vec<_> = program.strangers(open).unwrap().into_iter().collect();
        let want = [
            ("alloc::raw_vec::RawVec<T,A>::grow_one", read),
            ("core::panicking::panic_fmt", read),
            ("memset", open),
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn a_pointer_that_was_given_is_a_stranger_and_a_table_of_jumps_is_not() {
        let program = Program::of(DISASSEMBLY, RELOCATIONS);
        let emit = "bulkhead_engine::stage::emit::emit";
        assert_eq!(
            program.strangers(emit).unwrap().into_iter().collect::<Vec<_>>(),
            [(POINTER, emit)]
        );
        assert_eq!(program.0.get(emit).map(BTreeSet::len), Some(1));
        let one = Program::of("0000000000006000 <a>:\n    6000:\tjmp    *%rcx\n", "");
        assert_eq!(one.0.get("a").map(BTreeSet::len), Some(0));
    }

    #[test]
    fn a_stage_that_is_not_there_is_no_success() {
        let program = Program::of(DISASSEMBLY, RELOCATIONS);
        assert!(
            program.strangers("bulkhead_engine::stage::seal::seal").unwrap_err().contains("seal")
        );
    }
}
