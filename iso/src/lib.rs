//! How Bulkhead is packaged and started. There is no code here, only what keeps the files of this
//! folder honest: every hardening option has its reason, what a unit starts is what the package
//! installs, and the two daemons cannot reach into each other.
//!
//! ```text
//! Cargo.toml          what the .deb holds (cargo-deb)
//! build-deb           programs, manual pages, completions → target/debian/*.deb
//! check-deb           opens it, installs it into a throwaway root, grades the units
//! systemd/  deb/      units, user, maintainer scripts
//! ```

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    const MANIFEST: &str = include_str!("../Cargo.toml");
    const CONTROL: &str = include_str!("../systemd/bulkheadd.service");
    const DATAPATH: &str = include_str!("../systemd/bulkhead-datapath.service");

    /// The values of an option, one per line of the unit.
    fn values<'a>(unit: &'a str, option: &str) -> Vec<&'a str> {
        let lines = unit.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(name, _)| *name == option).map(|(_, value)| value).collect()
    }

    fn words<'a>(unit: &'a str, option: &str) -> BTreeSet<&'a str> {
        values(unit, option).iter().flat_map(|value| value.split_whitespace()).collect()
    }

    #[test]
    fn units_start_what_the_package_installs() {
        for unit in [CONTROL, DATAPATH] {
            let start = values(unit, "ExecStart");
            assert_eq!(start.len(), 1);
            let program = start[0].split(' ').next().unwrap().trim_start_matches('/');
            assert!(MANIFEST.contains(&format!("\"{program}\", \"755\"")), "{program}");
        }
        let start = values(CONTROL, "ExecStart")[0];
        let config = start.split(' ').skip_while(|word| *word != "--config").nth(1).unwrap();
        assert!(MANIFEST.contains(&format!("conf-files = [\"{config}\"]")), "{config}");
    }

    /// See the comment at CapabilityBoundingSet of bulkheadd.service: the kernel allows tracing
    /// within one user only towards a subset of one's own capabilities.
    #[test]
    fn neither_daemon_may_trace_the_other() {
        let option = "CapabilityBoundingSet";
        let (control, datapath) = (words(CONTROL, option), words(DATAPATH, option));
        assert!(!control.is_subset(&datapath), "the datapath could read the private key");
        assert!(!datapath.is_subset(&control));
        for unit in [CONTROL, DATAPATH] {
            assert_eq!(words(unit, "AmbientCapabilities"), words(unit, option));
            for root_in_all_but_name in ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"] {
                assert!(!words(unit, option).contains(root_in_all_but_name));
            }
            assert_eq!(values(unit, "NoNewPrivileges"), ["yes"]);
        }
    }

    #[test]
    fn the_datapath_sees_neither_keys_nor_state() {
        let hidden = words(DATAPATH, "InaccessiblePaths");
        assert!(hidden.contains("-/etc/bulkhead") && hidden.contains("-/var/lib/bulkhead"));
        assert!(!words(DATAPATH, "RestrictAddressFamilies").contains("AF_INET6"));
    }

    /// A reader must be able to tell why an option is there: each stands below a comment, itself
    /// or as one of a group without an empty line in between.
    #[test]
    fn every_group_of_options_has_its_reason() {
        for unit in [CONTROL, DATAPATH] {
            let service = unit.split("[Service]").nth(1).unwrap();
            let service = service.split("[Install]").next().unwrap();
            for group in service.split("\n\n") {
                let first = group.lines().find(|line| !line.is_empty()).unwrap_or("# none");
                let is_the_start = first.starts_with("Type=");
                assert!(first.starts_with('#') || is_the_start, "no reason for {first}");
            }
        }
    }
}
