//! `bulkhead man` and `bulkhead completions`: what a package carries.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::{Arguments, DaemonArguments, Said};

pub(super) fn completions(shell: Shell) -> Said {
    let mut script = vec![];
    generate(shell, &mut Arguments::command(), "bulkhead", &mut script);
    Said { out: String::from_utf8_lossy(&script).into_owned(), ..Said::default() }
}

pub(super) fn man(out: &Path) -> Said {
    match write_pages(out) {
        Ok(()) => Said::default(),
        Err(error) => Said::failed(format_args!("{}: {error}", out.display())),
    }
}

fn write_pages(out: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Arguments::command(), out)?;
    let daemon = Man::new(DaemonArguments::command()).section("8");
    let mut page = vec![];
    daemon.render(&mut page)?;
    std::fs::write(out.join("bulkheadd.8"), page)
}
