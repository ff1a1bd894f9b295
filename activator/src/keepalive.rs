//! Peers that have gone without a word, as with their node: whoever is silent is asked now and then.
//! Unasked, a connection on which nothing moves would stay for ever, and so would what it keeps awake.

use std::{io, os::fd::AsFd, time::Duration};

use rustix::net::sockopt;

/// Silent for so long, a peer is asked; as the queue-proxy has it.
pub(crate) const AFTER: Duration = Duration::from_secs(60);
/// Between two questions: as Linux has it, a connection would last for eleven minutes more.
pub(crate) const EVERY: Duration = Duration::from_secs(15);
/// So many questions without an answer end the connection.
pub(crate) const TIMES: u32 = 9;

/// Has the kernel ask the peer of `socket`, or those of all that a listener accepts: Linux hands it
/// down to them.
pub(crate) fn ask(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    sockopt::set_tcp_keepidle(socket, AFTER)?;
    sockopt::set_tcp_keepintvl(socket, EVERY)?;
    sockopt::set_tcp_keepcnt(socket, TIMES)?;
    sockopt::set_socket_keepalive(socket, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_hands_it_down_to_what_it_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ask(&listener).unwrap();
        let _caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), AFTER);
        assert_eq!(sockopt::tcp_keepintvl(&accepted).unwrap(), EVERY);
        assert_eq!(sockopt::tcp_keepcnt(&accepted).unwrap(), TIMES);
    }
}
