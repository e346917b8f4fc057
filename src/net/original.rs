//! Where a connection wanted to go before the kernel redirected it to us.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

/// The destination that the caller asked for, where `iptables` or `nftables` redirected its connection here; `None`
/// where it came to us by itself, and on systems other than Linux.
///
/// # Errors
/// Of a socket that is not connected any more.
pub fn destination(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let local = stream.local_addr()?;
    Ok(asked_for(stream, local).filter(|asked| (asked.ip(), asked.port()) != plain(local)))
}

#[cfg(target_os = "linux")]
fn asked_for(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    // A socket for both families has addresses of the newer; the kernel's table has those of the packets. An error
    // says that the table does not know the connection, or that there is no table.
    let asked = match local.ip().to_canonical().is_ipv4() {
        true => socket.original_dst_v4(),
        false => socket.original_dst_v6(),
    };
    let asked = asked.ok()?.as_socket()?;
    Some(SocketAddr::new(asked.ip(), asked.port()))
}

#[cfg(not(target_os = "linux"))]
fn asked_for(_: &TcpStream, _: SocketAddr) -> Option<SocketAddr> {
    None
}

fn plain(address: SocketAddr) -> (std::net::IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// In a network of its own, all that goes to port 9999 is redirected to port 15001.
    const NAMESPACE: &str = "ip link set lo up && ip addr add 192.0.2.7/32 dev lo && \
        ip -6 addr add 2001:db8::7/128 dev lo nodad && for tables in iptables ip6tables; do \
        $tables -t nat -A OUTPUT -p tcp --dport 9999 -j REDIRECT --to-ports 15001 || exit 1; done";

    #[test]
    fn a_redirected_connection_says_where_it_wanted_to_go() {
        let possible = Command::new("unshare").args(["--net", "sh", "-c", NAMESPACE]).output();
        if !possible.is_ok_and(|output| output.status.success()) {
            return eprintln!("skipped: it needs root, unshare, ip, and iptables that can redirect");
        }
        let within = format!("{NAMESPACE} && exec \"$0\" --ignored --exact net::original::tests::within");
        let test = std::env::current_exe().unwrap();
        let output = Command::new("unshare").args(["--net", "sh", "-c", &within]).arg(test).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[tokio::test]
    #[ignore = "the test above runs it where connections are redirected"]
    async fn within() {
        let listeners = [
            ("127.0.0.1:15001", &["192.0.2.7:9999"][..]),
            ("[::]:15001", &["192.0.2.7:9999", "[2001:db8::7]:9999"]),
        ];
        for (listen, asked) in listeners {
            let listener = crate::net::listener::bind(listen.parse().unwrap(), false).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            for asked in asked {
                let _caller = TcpStream::connect(asked).await.unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                assert_eq!(destination(&stream).unwrap(), Some(asked.parse().unwrap()), "on {listen}");
            }
            let direct = listen.replace("[::]", "[::1]");
            let _caller = TcpStream::connect(direct).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            assert_eq!(destination(&stream).unwrap(), None, "nobody redirected this one");
        }
    }

    #[tokio::test]
    async fn a_connection_that_came_by_itself_has_no_other_destination() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = tokio::net::TcpListener::bind(address).await else {
                continue;
            };
            let _caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            assert_eq!(destination(&stream).unwrap(), None);
        }
    }
}
