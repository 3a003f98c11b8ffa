//! A company that does not exist, as large as a test wants it: the same seed gives the same file.
//!
//! It has what makes policies large: people with a laptop and maybe a phone, in teams in departments
//! in divisions; segments with servers that have names; rules that are mostly from a team to a server,
//! some from more to more, a few that deny, and conditions on one in eight.

use std::fmt::Write;

use bulkhead_config::{Config, ConfigErrors, KeyFileError, KeySource, PublicKey, Secret};

/// How large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Company {
    /// Devices; at least 1, at most 1,000,000.
    pub devices: u32,
    /// Rules.
    pub rules: u32,
    /// The same seed gives the same company.
    pub seed: u64,
}

/// The size that the suites speak of: 10,000 rules, 20,000 devices.
pub const USUAL: Company = Company { devices: 20_000, rules: 10_000, seed: 1 };

const SEGMENTS: u32 = 40;
const SERVICES: u32 = 40;

impl Company {
    /// The file.
    #[must_use]
    pub fn text(self) -> String {
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = self.write(&mut text);
        text
    }

    /// The configuration. The key that it names is not a secret.
    ///
    /// # Errors
    ///
    /// If the company is larger than a configuration may be.
    pub fn config(self) -> Result<Config, ConfigErrors> {
        Config::parse_with("company.toml", &self.text(), &NoSecret)
    }

    /// Teams; a team has two lists of rights or so for each kind of device.
    #[must_use]
    pub fn teams(self) -> u32 {
        (self.devices / 50).clamp(4, 400)
    }

    /// Servers with names.
    #[must_use]
    pub fn hosts(self) -> u32 {
        (self.rules / 20).clamp(4, 500)
    }

    fn write(self, out: &mut String) -> std::fmt::Result {
        let mut random = Random(self.seed);
        write!(
            out,
            "schema = 1\n[gateway]\npeers_max = 262144\nsessions_max = 1048576\n\
             [port.outside]\ndevice = \"eth0\"\n[port.inside]\ndevice = \"eth1\"\nkind = \"segment\"\n\
             [wireguard.wg0]\nport = \"outside\"\nprivate_key_file = \"gateway.key\"\n\
             [tag.laptop]\n[tag.phone]\n\
             [posture.healthy]\nrequire = {{ disk_encrypted = true, managed = true }}\n\
             [posture.calm]\nat_most = {{ risk = 50 }}\n"
        )?;
        self.write_people(out)?;
        self.write_places(out)?;
        for rule in 0..self.rules {
            self.write_rule(out, rule, &mut random)?;
        }
        Ok(())
    }

    /// Three devices for every two people; teams in departments in divisions.
    fn write_people(self, out: &mut String) -> std::fmt::Result {
        let teams = self.teams();
        let mut members: Vec<String> = vec![String::new(); usize::try_from(teams).unwrap_or(0)];
        for device in 0..self.devices {
            let (user, kind) = match device % 3 {
                0 => (device / 3 * 2, "laptop"),
                1 => (device / 3 * 2, "phone"),
                _ => (device / 3 * 2 + 1, "laptop"),
            };
            let mut key = [0; 32];
            for (to, from) in key.iter_mut().zip((u64::from(device) + 1).to_le_bytes()) {
                *to = from;
            }
            let key = PublicKey(key);
            let [_, a, b, c] = device.to_be_bytes();
            if kind == "laptop" {
                writeln!(out, "[user.u{user}]")?;
                let at = usize::try_from(user % teams).unwrap_or(0);
                if let Some(members) = members.get_mut(at) {
                    write!(members, "\"user:u{user}\",")?;
                }
            }
            write!(
                out,
                "[device.d{device}]\nuser = \"u{user}\"\npublic_key = \"{key}\"\n\
                 addresses = [\"10.{}.{b}.{c}/32\", \"fd00::{:x}:{:x}/128\"]\ntags = [\"tag:{kind}\"]\n",
                u16::from(a) + 64,
                device >> 16,
                device & 0xffff
            )?;
        }
        for (team, members) in members.iter().enumerate() {
            writeln!(out, "[group.team{team}]\nmembers = [{members}]")?;
        }
        for (name, inner, count, size) in [
            ("department", "team", teams.div_ceil(10), 10),
            ("division", "department", teams.div_ceil(50), 5),
        ] {
            let inner_count = if name == "department" { teams } else { teams.div_ceil(10) };
            for at in 0..count {
                let members = (at * size..((at + 1) * size).min(inner_count))
                    .map(|inner_at| format!("\"group:{inner}{inner_at}\""));
                let members: Vec<_> = members.collect();
                writeln!(out, "[group.{name}{at}]\nmembers = [{}]", members.join(","))?;
            }
        }
        Ok(())
    }

    fn write_places(self, out: &mut String) -> std::fmt::Result {
        for n in 0..SEGMENTS {
            writeln!(
                out,
                "[segment.s{n}]\nport = \"inside\"\nvlan = {}\n\
                 subnets = [\"10.20.{n}.0/24\", \"fd01:0:0:{n:x}::/64\"]",
                n + 1
            )?;
        }
        for n in 0..self.hosts() {
            let (segment, host) = (n % SEGMENTS, n / SEGMENTS + 1);
            writeln!(
                out,
                "[host.h{n}]\naddresses = [\"10.20.{segment}.{host}/32\", \"fd01:0:0:{segment:x}::{host:x}/128\"]"
            )?;
        }
        for n in 0..SERVICES {
            let first = 1_000 + 100 * n;
            writeln!(
                out,
                "[service.p{n}]\nports = [\"tcp/{first}\", \"tcp/{}-{}\", \"udp/{first}\"]",
                first + 10,
                first + 20
            )?;
        }
        Ok(())
    }

    fn write_rule(self, out: &mut String, rule: u32, random: &mut Random) -> std::fmt::Result {
        let teams = self.teams();
        let from = match random.below(100) {
            0..70 => format!("group:team{}", random.below(teams)),
            70..88 => format!("group:department{}", random.below(teams.div_ceil(10))),
            88..94 => format!("group:division{}", random.below(teams.div_ceil(50))),
            94..97 => format!("host:h{}", random.below(self.hosts())),
            _ => ["tag:laptop", "tag:phone"]
                .get(usize::from(random.below(2) == 0))
                .map_or("any", |tag| tag)
                .to_owned(),
        };
        let to = match random.below(100) {
            0..90 => format!("host:h{}", random.below(self.hosts())),
            90..96 => format!("segment:s{}", random.below(SEGMENTS)),
            _ => format!("group:team{}", random.below(teams)),
        };
        let service = match random.below(40) {
            0 => "any".to_owned(),
            _ => format!("p{}", random.below(SERVICES)),
        };
        let action = if random.below(20) == 0 { "deny" } else { "allow" };
        let condition = match random.below(32) {
            0..2 => "posture = [\"healthy\"]\n",
            2 => "posture = [\"calm\", \"healthy\"]\n",
            3 => {
                "time = { days = \"mon-fri\", hours = \"07:00-19:00\", zone = \"Europe/Berlin\" }\n"
            }
            _ => "",
        };
        write!(
            out,
            "[[rule]]\nid = \"r{rule}\"\nfrom = [\"{from}\"]\nto = [\"{to}\"]\nservices = [\"{service}\"]\n\
             action = \"{action}\"\n{condition}"
        )
    }
}

/// Keys for files that are read without a folder: the same public one for every name.
#[derive(Clone, Copy, Debug)]
pub struct NoSecret;

impl KeySource for NoSecret {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        let key = "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=";
        key.parse().map_err(|_| KeyFileError::Content)
    }
}

/// Numbers that look random: splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(end.max(1))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_company_has_what_was_asked_for_and_is_the_same_every_time() {
        let company = Company { devices: 600, rules: 300, seed: 7 };
        let config = company.config().unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!((config.devices.len(), config.rules.len()), (600, 300));
        assert_eq!(config.users.len(), 400);
        assert_eq!(company.text(), company.text());
        assert_ne!(company.text(), Company { seed: 8, ..company }.text());
        let denials =
            config.rules.iter().filter(|rule| rule.action == bulkhead_config::Action::Deny);
        assert!(denials.count() > 3);
        assert!(config.rules.iter().any(|rule| !rule.condition.always()));
    }
}
