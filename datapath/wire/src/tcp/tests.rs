use super::*;
use proptest::prelude::*;

/// An IP packet with a TCP segment: `flags`, sequence 1000, acknowledgement 2000, `data` bytes.
fn segment(v6: bool, flags: u8, options: usize, data: usize) -> Vec<u8> {
    let mut tcp = vec![0; 20 + 4 * options + data];
    tcp[..4].copy_from_slice(&[0x0f, 0xa0, 0x01, 0xbb]);
    tcp[4..8].copy_from_slice(&1_000u32.to_be_bytes());
    tcp[8..12].copy_from_slice(&2_000u32.to_be_bytes());
    tcp[12] = u8::try_from(5 + options).unwrap() << 4;
    tcp[13] = flags;
    let mut packet = if v6 {
        let mut ip = vec![0x60, 0, 0, 0, 0, 0, 6, 50];
        ip[4..6].copy_from_slice(&u16::try_from(tcp.len()).unwrap().to_be_bytes());
        for host in [1, 2] {
            let mut address = [0; 16];
            (address[0], address[1], address[15]) = (0xfd, 0x44, host);
            ip.extend(address);
        }
        ip
    } else {
        let len = u16::try_from(20 + tcp.len()).unwrap().to_be_bytes();
        let mut ip = vec![0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 50, 6, 0, 0];
        ip.extend([10, 44, 0, 1, 10, 44, 0, 2]);
        let sum = checksum::of(&ip).to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        ip
    };
    packet.extend(tcp);
    packet
}

/// Source port, destination port, sequence, acknowledgement, flags of the reset; its checksums are
/// verified by hand.
fn read(reset: &[u8], v6: bool) -> (u16, u16, u32, u32, u8) {
    let packet = IpPacket::parse(reset).unwrap();
    let tcp = &reset[usize::from(packet.transport_at)..usize::from(packet.len)];
    assert_eq!((packet.protocol, tcp.len(), reset.len()), (6, 20, usize::from(packet.len)));
    let addresses = if v6 { &reset[8..40] } else { &reset[12..20] };
    let words = addresses.chunks(2).chain(tcp.chunks(2));
    let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>() + 20 + 6;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    assert_eq!(sum, 0xffff, "RFC 9293 §3.1, word by word");
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_be_bytes(tcp[at..at + 2].try_into().unwrap());
    (half(0), half(2), word(4), word(8), tcp[13])
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const RST: u8 = 4;

#[test]
fn a_reset_has_the_numbers_that_each_end_expects() {
    for v6 in [false, true] {
        let (mut out, here, there) = ([0; 80], 4_000, 443);
        let cases = [
            (segment(v6, ACK, 3, 7), ResetTo::Sender, (there, here, 2_000, 0, RST)),
            (segment(v6, ACK, 3, 7), ResetTo::Receiver, (here, there, 1_000, 2_000, RST | ACK)),
            (segment(v6, SYN, 2, 0), ResetTo::Sender, (there, here, 0, 1_001, RST | ACK)),
            (segment(v6, 1, 0, 9), ResetTo::Sender, (there, here, 0, 1_010, RST | ACK)),
            (segment(v6, SYN | ACK, 0, 0), ResetTo::Sender, (there, here, 2_000, 0, RST)),
        ];
        for (about, to, want) in cases {
            let len = write_reset(to, &about, &mut out).unwrap();
            assert_eq!(read(&out[..len], v6), want, "{to:?} {v6}");
            let (reset, about) =
                (IpPacket::parse(&out[..len]).unwrap(), IpPacket::parse(&about).unwrap());
            let ends = match to {
                ResetTo::Sender => (about.destination, about.source),
                ResetTo::Receiver => (about.source, about.destination),
            };
            assert_eq!((reset.source, reset.destination), ends);
            // What does not fit is not written.
            assert_eq!(write_reset(to, &segment(v6, ACK, 0, 0), &mut out[..len - 1]), None);
        }
    }
}

#[test]
fn no_reset_answers_a_reset_a_fragment_or_what_is_no_tcp() {
    let mut out = [0; 80];
    let both = [ResetTo::Sender, ResetTo::Receiver];
    for to in both {
        for v6 in [false, true] {
            assert_eq!(write_reset(to, &segment(v6, RST | ACK, 0, 0), &mut out), None);
            let mut udp = segment(v6, ACK, 0, 0);
            // 20 bytes are a UDP datagram of length 1,000 or so: malformed, or no TCP.
            udp[if v6 { 6 } else { 9 }] = 17;
            assert_eq!(write_reset(to, &udp, &mut out), None);
        }
        let mut fragment = segment(false, ACK, 0, 36);
        fragment[6] = 0x20;
        fragment[10..12].fill(0);
        let sum = checksum::of(&fragment[..20]).to_be_bytes();
        fragment[10..12].copy_from_slice(&sum);
        assert!(matches!(IpPacket::parse(&fragment).unwrap().fragment, Fragment::First(_)));
        assert_eq!(write_reset(to, &fragment, &mut out), None);
    }
    assert_eq!(write_reset(ResetTo::Receiver, &segment(true, SYN, 0, 0), &mut out), None);
}

proptest! {
    /// Whatever comes, no panic; and what is written is a reset between the two ends.
    #[test]
    fn any_bytes_make_a_reset_or_nothing(
        v6: bool, flags: u8, options in 0..11usize, data in 0..60usize,
        flips in prop::collection::vec((0..120usize, any::<u8>()), 0..6), to_sender: bool,
    ) {
        let mut about = segment(v6, flags, options, data);
        for (at, value) in flips {
            if let Some(byte) = about.get_mut(at) {
                *byte = value;
            }
        }
        let to = if to_sender { ResetTo::Sender } else { ResetTo::Receiver };
        let mut out = [0; 80];
        if let Some(len) = write_reset(to, &about, &mut out) {
            let reset = IpPacket::parse(&out[..len]).unwrap();
            let Transport::Tcp { flags, .. } = reset.transport else { panic!("{reset:?}") };
            prop_assert!(flags.0 & RST != 0 && len <= about.len());
        }
    }
}
