//! What goes through: users that write and read a pattern, services at the far end of them, and
//! both check every byte.
//!
//! A pattern is decided by its seed: a byte that is lost, doubled or moved shows.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::support::PATIENCE;

/// Bytes of a piece, and so of a write.
const PIECE: usize = 48 * 1024;

/// Bytes in an order that the seed decides. Odd seeds are text, which compresses.
pub(crate) struct Pattern {
    seed: u64,
    at: u64,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Pattern {
        Pattern { seed, at: 0 }
    }

    /// The next bytes. All pieces but the last are whole words.
    pub(crate) fn fill(&mut self, piece: &mut [u8]) {
        let text = self.seed % 2 == 1;
        for word in piece.chunks_mut(8) {
            let mut value = mixed(self.seed, self.at / 8);
            if text {
                value = 0x6161_6161_6161_6161 + (value & 0x0003_0000_0f03_0001);
            }
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
            self.at += word.len() as u64;
        }
    }
}

/// SplitMix64's finish.
fn mixed(seed: u64, at: u64) -> u64 {
    let mut value = (seed << 40 ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value ^ value >> 27
}

/// Writes so many bytes of a pattern.
pub(crate) fn write_pattern(mut to: &TcpStream, seed: u64, bytes: u64) -> std::io::Result<()> {
    let (mut pattern, mut left) = (Pattern::new(seed), bytes);
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let many = left.min(PIECE as u64) as usize;
        pattern.fill(&mut piece[..many]);
        to.write_all(&piece[..many])?;
        left -= many as u64;
    }
    Ok(())
}

/// Reads so many bytes, which must be the pattern's.
pub(crate) fn read_pattern(mut from: &TcpStream, seed: u64, bytes: u64) -> std::io::Result<()> {
    let (mut pattern, mut left) = (Pattern::new(seed), bytes);
    let (mut got, mut wanted) = (vec![0; PIECE], vec![0; PIECE]);
    while left > 0 {
        let many = left.min(PIECE as u64) as usize;
        from.read_exact(&mut got[..many])?;
        pattern.fill(&mut wanted[..many]);
        if let Some(at) = (0..many).find(|at| got[*at] != wanted[*at]) {
            let at = bytes - left + at as u64;
            return Err(std::io::Error::other(format!("byte {at} of {bytes} is another")));
        }
        left -= many as u64;
    }
    Ok(())
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its writer said so.
    Whole,
    /// It was reset.
    Reset,
}

/// Reads to the end of a stream.
#[track_caller]
pub(crate) fn end_of(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => (all, End::Whole),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (all, End::Reset),
        Err(error) => panic!("neither an end nor a reset, after {} bytes: {error}", all.len()),
    }
}

/// The stream is reset, and nothing comes before that.
#[track_caller]
pub(crate) fn is_reset(stream: &mut TcpStream) {
    assert_eq!(end_of(stream), (Vec::new(), End::Reset));
}

/// A connection that waits for nothing longer than a test does.
#[track_caller]
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    patient(&stream);
    stream
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
}

/// A port of the kernel's where somebody listens.
pub(crate) fn listen(at: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(at).expect("a port of the kernel's");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

/// A service that gives every connection to a thread. It ends with the test's process.
pub(crate) fn serve(
    at: &str,
    talk: impl Fn(TcpStream, SocketAddr) + Clone + Send + 'static,
) -> SocketAddr {
    let (listener, addr) = listen(at);
    std::thread::spawn(move || {
        while let Ok((stream, from)) = listener.accept() {
            let talk = talk.clone();
            patient(&stream);
            std::thread::spawn(move || talk(stream, from));
        }
    });
    addr
}

/// A service that says what it hears, until its user has ended.
pub(crate) fn echo() -> SocketAddr {
    serve("127.0.0.1:0", echo_one)
}

pub(crate) fn echo_one(mut stream: TcpStream, _: SocketAddr) {
    let mut some = vec![0; 16 * 1024];
    while let Ok(many @ 1..) = stream.read(&mut some) {
        if stream.write_all(&some[..many]).is_err() {
            return;
        }
    }
}

/// A service whose connections the test holds itself.
pub(crate) struct Held {
    pub(crate) addr: SocketAddr,
    came: Receiver<TcpStream>,
}

impl Held {
    pub(crate) fn listen(at: &str) -> Held {
        let (tell, came) = channel();
        let tell: Sender<TcpStream> = tell;
        // Who tells nobody any more has a test that is over.
        let addr = serve(at, move |stream, _| drop(tell.send(stream)));
        Held { addr, came }
    }

    #[track_caller]
    pub(crate) fn next(&self) -> TcpStream {
        self.came.recv_timeout(PATIENCE).expect("somebody comes to the service")
    }

    /// Nobody else has come.
    #[track_caller]
    pub(crate) fn is_alone(&self) {
        assert!(self.came.try_recv().is_err(), "somebody came to the service");
    }
}

/// Says a word and hears it again.
#[track_caller]
pub(crate) fn says_again(stream: &mut TcpStream, word: &[u8]) {
    stream.write_all(word).expect("it takes it");
    let mut heard = vec![0; word.len()];
    stream.read_exact(&mut heard).expect("the word comes back");
    assert_eq!(heard, word);
}

/// What one transfer moves: a pattern each way at once.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) seed: u64,
    pub(crate) up: u64,
    pub(crate) down: u64,
}

/// A service for transfers: it is told what to expect and what to say, and does both at once. What
/// comes of it is told by its last byte: only if all that it read was right.
pub(crate) fn mirror(at: &str) -> SocketAddr {
    serve(at, |stream, _| {
        // Who is reset half-way has no answer to give; the user misses it.
        let _ = mirror_one(&stream);
    })
}

fn mirror_one(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut head = [[0; 8]; 3];
    stream.read_exact(head.as_flattened_mut())?;
    let [seed, up, down] = head.map(u64::from_le_bytes);
    std::thread::scope(|both| {
        let writes = both.spawn(move || write_pattern(stream, seed + 2, down));
        let read = read_pattern(stream, seed, up).and_then(|()| match stream.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(std::io::Error::other("there is more than was said")),
        });
        writes.join().expect("no panic")?;
        stream.write_all(match read {
            Ok(()) => b"+",
            Err(_) => b"-",
        })
    })
}

/// A user of such a service, at work on a thread of its own.
pub(crate) struct Transfer(JoinHandle<Result<(), String>>);

impl Transfer {
    pub(crate) fn begin(to: SocketAddr, load: Load) -> Transfer {
        Transfer::over(connect(to), load)
    }

    pub(crate) fn over(stream: TcpStream, load: Load) -> Transfer {
        Transfer(std::thread::spawn(move || transfer(&stream, load)))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_finished()
    }

    /// It broke, and its user knows that what came is not all.
    #[track_caller]
    pub(crate) fn breaks(self) {
        let told = self.0.join().expect("no panic");
        assert!(
            told.as_ref().is_err_and(|what| what.contains("reset") || what.contains("Reset")),
            "{told:?}"
        );
    }

    /// Every byte has arrived, at both ends, once and in its place.
    #[track_caller]
    pub(crate) fn arrives(self) {
        if let Err(what) = self.0.join().expect("no panic") {
            panic!("{what}");
        }
    }
}

fn transfer(mut stream: &TcpStream, load: Load) -> Result<(), String> {
    let Load { seed, up, down } = load;
    stream
        .write_all([seed, up, down].map(u64::to_le_bytes).as_flattened())
        .map_err(|e| e.to_string())?;
    std::thread::scope(|both| {
        let writes = both.spawn(move || {
            write_pattern(stream, seed, up)?;
            stream.shutdown(Shutdown::Write)
        });
        let read = read_pattern(stream, seed + 2, down).and_then(|()| {
            let mut last = Vec::new();
            stream.read_to_end(&mut last).map(|_| last)
        });
        let wrote = writes.join().expect("no panic");
        // Of a reset one of the two hears, and the other that it is over.
        let last = read.map_err(|error| format!("seed {seed}: down: {error}; up: {wrote:?}"))?;
        wrote.map_err(|error| format!("seed {seed}: up: {error}"))?;
        if last == b"+" { Ok(()) } else { Err(format!("seed {seed}: the service said {last:?}")) }
    })
}
