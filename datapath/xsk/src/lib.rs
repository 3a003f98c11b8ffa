//! AF_XDP: packet memory, rings, sockets, and the XDP program that steers to them
