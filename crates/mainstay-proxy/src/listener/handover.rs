//! Listening sockets go from one process to the next over a unix socket (`SCM_RIGHTS`).
//!
//! Both processes may accept for a moment; what one does not take the other does. Each message
//! carries the sockets of one listener with its name, so that the new process can match them with
//! its own configuration; a message without sockets ends the list.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Sockets per message; the kernel takes at most 253 (`SCM_MAX_FD`).
const SOCKETS_MAX: usize = 128;

/// Bytes of a listener's name: an address, or a name of our configuration.
const NAME_MAX: usize = 255;

/// Sends `listeners` over `stream`: each name with its sockets, 1 to 128.
///
/// # Errors
///
/// When a name is empty or longer than 255 bytes, sockets are none or too many, or the peer is gone.
pub fn send(stream: &UnixStream, listeners: &[(String, Vec<OwnedFd>)]) -> io::Result<()> {
    for (name, sockets) in listeners {
        let length = u8::try_from(name.len()).ok().filter(|length| *length != 0);
        let (Some(length), 1..=SOCKETS_MAX) = (length, sockets.len()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot be handed over"));
        };
        let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut message = vec![length];
        message.extend_from_slice(name.as_bytes());
        // The sockets go with the first byte; a name cut short would follow without them.
        let sent = sendmsg(stream, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL)?;
        io::Write::write_all(&mut &*stream, message.get(sent..).unwrap_or_default())?;
    }
    io::Write::write_all(&mut &*stream, &[0])
}

/// Receives what [`send`] sent.
///
/// # Errors
///
/// When the peer sends anything else, or goes away before the end of the list. Sockets received
/// until then are closed, and stay open over there.
pub fn receive(stream: &UnixStream) -> io::Result<Vec<(String, Vec<OwnedFd>)>> {
    let mut listeners = Vec::new();
    loop {
        let mut length = [0];
        let mut sockets = Vec::new();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let buffers = &mut [IoSliceMut::new(&mut length)];
        let message = recvmsg(stream, buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for control in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = control {
                sockets.extend(received);
            }
        }
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "sockets were lost"));
        }
        match (length[0], sockets.is_empty()) {
            (0, true) => return Ok(listeners),
            (1.., false) => {
                let mut name = [0; NAME_MAX];
                let name = &mut name[..usize::from(length[0])];
                io::Read::read_exact(&mut &*stream, name)?;
                listeners.push((String::from_utf8_lossy(name).into_owned(), sockets));
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "no listener")),
        }
    }
}
