//! A policy with a condition, and what a datapath that has its table lets pass.

use std::collections::BTreeMap;

use bulkhead_link::ToDatapath;
use bulkhead_table::{EndpointId, LabelId, Service, Table, Verdict};
use bulkhead_wire::Address;

/// anna and bert may reach zoe while they are sound.
pub(crate) const POLICY: &str = "[attribute.floor]\ntype = \"int\"\n\
    [posture.sound]\nrequire = { disk_encrypted = true }\nat_most = { patch_age_days = 14 }\n\
    [[rule]]\nid = \"payroll\"\nfrom = [\"device:anna\", \"device:bert\"]\nto = [\"device:zoe\"]\n\
    services = [\"any\"]\nposture = [\"sound\"]\n";
pub(crate) const DEVICES: [&str; 3] = ["anna", "bert", "zoe"];
pub(crate) const SOUND: [&str; 2] = ["disk_encrypted=true", "patch_age_days=3"];

/// What a datapath judges by: a table, and the labels that it was told since.
pub(crate) struct Judge {
    pub(crate) table: Table,
    labels: BTreeMap<u32, u16>,
}

impl Judge {
    pub(crate) fn of(table: Table) -> Self {
        Self { table, labels: BTreeMap::new() }
    }

    pub(crate) fn label(&self, device: &str) -> LabelId {
        let address = [10, 44, 0, device.as_bytes()[0]];
        let id = self.table.view().endpoint_at(Address::from(std::net::IpAddr::from(address)));
        let own = self.table.view().endpoint(id).unwrap().label;
        self.labels.get(&id.0).map_or(own, |label| LabelId(*label))
    }

    pub(crate) fn allows(&self, from: &str) -> bool {
        let (from, to) = (self.label(from), self.label("zoe"));
        matches!(self.table.view().judge(from, to, Service::tcp(443)), Verdict::Allow(_))
    }

    /// Takes a message about labels; returns its token.
    pub(crate) fn relabel(&mut self, message: ToDatapath) -> u64 {
        let ToDatapath::Relabel { token, generation, labels } = message else {
            panic!("{message:?}");
        };
        assert_eq!(generation, self.table.generation());
        for (endpoint, label) in &labels {
            assert!(self.table.view().endpoint(EndpointId(*endpoint)).is_some());
            assert!(usize::from(*label) < self.table.label_count());
        }
        self.labels.extend(labels);
        token
    }
}

/// Segments and rules that take the compiler some tens of milliseconds.
pub(crate) fn large() -> String {
    let mut text = String::from("[port.inside]\ndevice = \"lo-none\"\nkind = \"segment\"\n");
    for number in 0..4_000 {
        let subnet = format!("10.{}.{}.0/24", 100 + number / 256, number % 256);
        text += &format!(
            "[segment.s{number}]\nport = \"inside\"\nsubnets = [\"{subnet}\"]\n\
             [service.v{number}]\nports = [\"tcp/{}\"]\n[[rule]]\nid = \"r{number}\"\n\
             from = [\"device:anna\"]\nto = [\"segment:s{number}\"]\nservices = [\"v{number}\"]\n",
            number + 1
        );
    }
    text
}
