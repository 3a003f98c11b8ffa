//! Every way in which bytes are not a packet that we forward.

macro_rules! malformed {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Why a packet is refused. One variant per way; never an excuse to guess.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Malformed {
            $($(#[$doc])* $variant,)*
        }

        impl Malformed {
            /// Every way, in the order of the enum.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in metrics and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

malformed! {
    /// The bytes end inside the Ethernet header or its tag.
    EthernetTruncated => "ethernet_truncated",
    /// The bytes end inside the IP header.
    IpTruncated => "ip_truncated",
    /// Neither version 4 nor 6.
    IpVersion => "ip_version",
    /// The IPv4 header claims fewer than 20 bytes.
    Ipv4HeaderLength => "ipv4_header_length",
    /// The IPv4 total length is shorter than the header or longer than the bytes.
    Ipv4TotalLength => "ipv4_total_length",
    /// The IPv4 header checksum is wrong.
    Ipv4Checksum => "ipv4_checksum",
    /// An IPv4 option has no length, or one that leaves the header.
    Ipv4Option => "ipv4_option",
    /// An IPv4 source route: the destination in the header is not where the packet is going.
    Ipv4SourceRoute => "ipv4_source_route",
    /// The IPv6 payload length is longer than the bytes.
    Ipv6PayloadLength => "ipv6_payload_length",
    /// Longer than 65535 bytes with the header. No port carries it.
    Ipv6TooLong => "ipv6_too_long",
    /// An IPv6 extension header leaves the packet.
    Ipv6ExtensionTruncated => "ipv6_extension_truncated",
    /// More IPv6 extension headers than anybody needs.
    Ipv6ExtensionCount => "ipv6_extension_count",
    /// Hop-by-hop options that are not first, or a second routing or fragment header (RFC 8200 §4.1).
    Ipv6ExtensionOrder => "ipv6_extension_order",
    /// An IPv6 routing header of type 0 (RFC 5095), or of any type with hops still to visit.
    Ipv6RoutingHeader => "ipv6_routing_header",
    /// A fragment that is not the last has no data, or data of a length that is no multiple of 8.
    FragmentLength => "fragment_length",
    /// A fragment ends beyond the largest packet.
    FragmentPastEnd => "fragment_past_end",
    /// A later fragment would overwrite the TCP header that was judged (RFC 1858, RFC 3128).
    FragmentOverlap => "fragment_overlap",
    /// A first fragment that does not hold all headers (RFC 1858 §3.1, RFC 7112).
    FragmentTiny => "fragment_tiny",
    /// The transport header is cut.
    TransportTruncated => "transport_truncated",
    /// The TCP data offset is below 20 bytes.
    TcpHeaderLength => "tcp_header_length",
    /// The UDP length is below 8, or longer than the datagram.
    UdpLength => "udp_length",
    /// ICMP inside IPv6, or ICMPv6 inside IPv4.
    IcmpFamily => "icmp_family",
    /// An address that may not appear on a wire in this place.
    Martian => "martian",
    /// The destination is a multicast group or the limited broadcast address.
    Multicast => "multicast",
}
