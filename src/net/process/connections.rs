//! The inode of a connection's socket, by the addresses of its two ends.
//!
//! The kernel is asked for the very socket (`sock_diag`, netlink), which takes microseconds however many connections there are.
//! Where that is not permitted or not built in, `/proc/net/tcp` is read: whole, since it cannot be searched.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::{Failure, in_time};

/// "Whatever socket has these addresses": each is numbered, besides, which we cannot know.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Nobody has tried the kernel's own search yet.
const UNTRIED: u8 = 0;
const WORKS: u8 = 1;
const ABSENT: u8 = 2;

/// Finds sockets.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Kept open, one for each thread that asks at a time.
    sockets: Mutex<Vec<Asking>>,
    search: AtomicU8,
}

impl Connections {
    /// The inode of a socket, given by its own address and its peer's. `None` where there is no such socket, or nobody has it yet:
    /// one that waits to be accepted has no inode.
    pub(super) fn inode(
        &self,
        own: SocketAddr,
        peer: SocketAddr,
        until: Instant,
    ) -> Result<Option<u64>, Failure> {
        let search = self.search.load(Ordering::Relaxed);
        if search != ABSENT {
            let found = self.ask(own, peer);
            if matches!(found, Some(Some(_))) && search == UNTRIED {
                self.search.store(WORKS, Ordering::Relaxed);
            }
            match found {
                Some(Some(inode)) => return Ok(Some(inode).filter(|inode| *inode != 0)),
                Some(None) if search == WORKS => return Ok(None),
                // A kernel without that part says of every socket that there is none.
                Some(None) | None => {}
            }
        }
        in_time(until)?;
        let found = in_table(own, peer, until)?;
        if found.is_some() && search == UNTRIED {
            self.search.store(ABSENT, Ordering::Relaxed);
        }
        Ok(found)
    }

    /// `None`: the kernel cannot be asked. `Some(None)`: it says that there is no such socket.
    fn ask(&self, own: SocketAddr, peer: SocketAddr) -> Option<Option<u64>> {
        let kept = self.lock().pop();
        let mut asking = kept.or_else(Asking::new)?;
        let answer = asking.ask(own, peer)?;
        self.lock().push(asking);
        Some(answer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Asking>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A netlink socket to ask on. Dropped when anything about it is strange: an answer to an earlier question would be taken for
/// that of the next.
#[derive(Debug)]
struct Asking {
    socket: Socket,
    asked: u32,
}

impl Asking {
    fn new() -> Option<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).ok()?;
        socket.bind_auto().ok()?;
        socket.connect(&netlink_sys::SocketAddr::new(0, 0)).ok()?;
        // The kernel answers while it is asked; what is not there then will never come.
        socket.set_non_blocking(true).ok()?;
        Some(Self { socket, asked: 0 })
    }

    fn ask(&mut self, own: SocketAddr, peer: SocketAddr) -> Option<Option<u64>> {
        let (own, peer) = (plain(own), plain(peer));
        let interface_id = match own {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(own) => own.scope_id(),
        };
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        self.asked = self.asked.wrapping_add(1);
        header.sequence_number = self.asked;
        let request = InetRequest {
            // A socket of IPv6 whose addresses are IPv4 is found as IPv4.
            family: if own.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: own.port(),
                destination_port: peer.port(),
                source_address: own.ip(),
                destination_address: peer.ip(),
                interface_id,
                cookie: NO_COOKIE,
            },
        };
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = [0; 128];
        let bytes = bytes.get_mut(..message.buffer_len())?;
        message.serialize(bytes);
        self.socket.send(bytes, 0).ok()?;
        let mut answer = [0; 2048];
        let length = self.socket.recv(&mut &mut answer[..], 0).ok()?;
        let answer = NetlinkMessage::<SockDiagMessage>::deserialize(answer.get(..length)?).ok()?;
        if answer.header.sequence_number != self.asked {
            return None;
        }
        match answer.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                let id = &found.header.socket_id;
                let ends = (
                    SocketAddr::new(id.source_address.to_canonical(), id.source_port),
                    SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
                );
                // Where there is no such connection we are told of the listener that would get one.
                let same =
                    ends == (SocketAddr::new(own.ip(), own.port()), SocketAddr::new(peer.ip(), peer.port()));
                Some(same.then_some(found.header.inode.into()))
            }
            NetlinkPayload::Error(error) if error.to_io().kind() == std::io::ErrorKind::NotFound => {
                Some(None)
            }
            _ => None,
        }
    }
}

/// IPv4 in IPv6 is IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(six) if six.ip().to_ipv4_mapped().is_none() => address,
        _ => SocketAddr::new(address.ip().to_canonical(), address.port()),
    }
}

/// The inode by the kernel's table of all connections.
fn in_table(own: SocketAddr, peer: SocketAddr, until: Instant) -> Result<Option<u64>, Failure> {
    // Scope and flow label are not in the table.
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let ends = (canonical(own), canonical(peer));
    // An IPv4 connection of a socket that listens on [::] is in tcp6, as ::ffff:a.b.c.d.
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(file) = std::fs::File::open(table) else { continue };
        // The kernel hands out whole lines, a page at a time; the lock it takes is per bucket.
        let mut lines = BufReader::with_capacity(64 * 1024, file);
        let mut line = Vec::new();
        loop {
            line.clear();
            match lines.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            in_time(until)?;
            // A socket in TIME_WAIT has inode 0 and must not hide a new one of the same addresses.
            if let Some((own, peer, inode)) = row(&line)
                && inode != 0
                && ends == (own, peer)
            {
                return Ok(Some(inode));
            }
        }
    }
    Ok(None)
}

/// The inodes of the sockets that listen on `port`.
pub(super) fn listening(port: u16) -> Vec<u64> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let rows = std::fs::read(table).unwrap_or_default();
        let rows = rows.split(|byte| *byte == b'\n').filter_map(row);
        // Only a socket that listens has no peer.
        let listening = rows.filter(|(local, peer, _)| local.port() == port && peer.port() == 0);
        inodes.extend(listening.map(|(_, _, inode)| inode));
    }
    inodes
}

/// Own address, peer's address and inode in one line of the table.
fn row(line: &[u8]) -> Option<(SocketAddr, SocketAddr, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    // State, queues, timers, retransmissions, user, timeout; then the inode.
    Some((local, remote, fields.nth(6)?.parse().ok()?))
}

/// `0100007F:1F90`: words of 32 bits as the machine keeps them, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(host.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match host.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn inode_of(stream: &impl AsFd) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::File::from(stream.as_fd().try_clone_to_owned().unwrap());
        file.metadata().unwrap().ino()
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    /// Asks both ways about a connection to `listen`, before and after it is accepted.
    fn check(listen: &str, connect: &str) {
        let Ok(listener) = TcpListener::bind(listen) else {
            return eprintln!("SKIPPED: {listen} cannot be had here");
        };
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect((connect, port)).unwrap();
        let (near, far) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let connections = Connections::default();
        let netlink = |own, peer| connections.ask(own, peer).expect("this kernel can be asked");
        assert_eq!(connections.inode(near, far, later()).unwrap(), Some(inode_of(&stream)));
        assert_eq!(connections.inode(far, near, later()).unwrap(), None, "nobody has accepted it");
        assert_eq!(netlink(far, near), Some(0));
        let (accepted, seen_as) = listener.accept().unwrap();
        assert_eq!(connections.inode(far, near, later()).unwrap(), Some(inode_of(&accepted)));
        assert_eq!(
            connections.inode(accepted.local_addr().unwrap(), seen_as, later()).unwrap(),
            Some(inode_of(&accepted))
        );
        assert_eq!(in_table(far, near, later()).unwrap(), Some(inode_of(&accepted)));
        let mut nobody = near;
        nobody.set_port(1);
        assert_eq!(netlink(far, nobody), None, "the listener is not meant");
        assert_eq!(connections.inode(far, nobody, later()).unwrap(), None);
    }

    #[test]
    fn a_connection_is_found_by_its_ends_once_it_is_accepted() {
        check("127.0.0.1:0", "127.0.0.1");
    }

    #[test]
    fn so_is_one_of_ipv6() {
        check("[::1]:0", "::1");
    }

    #[test]
    fn so_is_one_of_ipv4_on_a_listener_of_ipv6() {
        check("[::]:0", "127.0.0.1");
    }

    #[test]
    fn where_the_kernel_cannot_be_asked_its_table_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, far) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let connections = Connections { search: AtomicU8::new(ABSENT), ..Connections::default() };
        assert_eq!(connections.inode(near, far, later()).unwrap(), Some(inode_of(&stream)));
        assert!(connections.lock().is_empty(), "nothing was asked");
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_both_tables_are_read() {
        let line = b"   0: 0100007F:1F90 0200007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 33451 1 0000 20 4 30 10 -1\n";
        let expected = ("127.0.0.1:8080".parse().unwrap(), "127.0.0.2:54321".parse().unwrap(), 33451);
        assert_eq!(row(line), Some(expected));
        let line = b"   1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000001000000:D431 01 00000000:00000000 00:00000000 00000000     0        0 7 1 0\n";
        let expected = ("127.0.0.1:8080".parse().unwrap(), "[::1]:54321".parse().unwrap(), 7);
        assert_eq!(row(line), Some(expected));
    }

    #[test]
    fn the_head_of_the_table_is_no_row() {
        assert_eq!(
            row(b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"),
            None
        );
    }

    proptest! {
        #[test]
        fn any_line_can_be_read(line in proptest::collection::vec(any::<u8>(), 0..200), text in "[0-9A-F: é]{0,80}") {
            row(&line);
            row(text.as_bytes());
        }
    }
}
