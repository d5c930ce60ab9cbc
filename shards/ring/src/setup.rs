//! What the running kernel offers, found out one by one, and what to do about what is missing.
//!
//! Two things are told apart: what the service cannot do without (then [`probe`] fails and the
//! error names the remedy), and what it does without at a price (then the [`Report`] says which).
//! Nothing is concluded from a version number that can be tried instead.
//!
//! A [`ProbeMask`] hides features, so that a test on a new kernel walks the ways of an old one.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use thiserror::Error;

use crate::bufring::BufRing;
use crate::host::{self, Limit};
use crate::letters::{Asked, Receives};
use crate::sq::{self, Group, Tag};
use crate::udp::{DatagramSocket, FRONT_BYTES, SocketMemory};

/// Something that newer kernels offer and older ones lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Feature {
    /// Completions are worked on only when we ask for them.
    DeferTaskrun,
    /// One thread submits, and the kernel skips its locks.
    SingleIssuer,
    /// Completions do not interrupt us.
    CoopTaskrun,
    /// A flag in memory tells that completions wait, so that spinning needs no system call.
    TaskrunFlag,
    /// Requests are read from the queue without a detour.
    NoSqArray,
    /// The kernel takes a receive buffer when bytes have arrived. Required.
    BufferRings,
    /// One request accepts many connections.
    MultishotAccept,
    /// One request receives again and again.
    MultishotReceive,
    /// A send that took everything is silent.
    QuietSend,
    /// One ring wakes another without a system call of its own.
    RingToRing,
    /// Waiting is not accounted as waiting for a disk.
    NoIowait,
    /// One request receives datagrams again and again.
    MultishotReceiveMessage,
    /// The kernel cuts what is sent into datagrams.
    SendTrains,
    /// The kernel puts datagrams together that arrive one after the other.
    ReceiveTrains,
}

/// What is written about a feature, for people.
struct About {
    feature: Feature,
    name: &'static str,
    since: &'static str,
    without: &'static str,
}

/// In the order of the enum.
const ABOUT: [About; 14] = [
    about(Feature::DeferTaskrun, "DEFER_TASKRUN", "6.1", "about 29 % more CPU per small request"),
    about(Feature::SingleIssuer, "SINGLE_ISSUER", "6.0", "DEFER_TASKRUN is not possible"),
    about(Feature::CoopTaskrun, "COOP_TASKRUN", "5.19", "completions interrupt the shard"),
    about(Feature::TaskrunFlag, "TASKRUN_FLAG", "5.19", "shards do not spin before they sleep"),
    about(Feature::NoSqArray, "NO_SQARRAY", "6.6", "one more memory read per request"),
    about(Feature::BufferRings, "buffer rings", "5.19", "nothing can be received"),
    about(Feature::MultishotAccept, "multishot accept", "5.19", "one request per connection"),
    about(Feature::MultishotReceive, "multishot receive", "6.0", "one request per receive"),
    about(Feature::QuietSend, "quiet sends", "5.17", "one completion per send, more turns"),
    about(Feature::RingToRing, "ring to ring messages", "6.3", "shards wake each other by eventfd"),
    about(Feature::NoIowait, "NO_IOWAIT", "6.15", "idle shards may be shown as iowait"),
    about(Feature::MultishotReceiveMessage, "multishot recvmsg", "6.0", "one request per datagram"),
    about(Feature::SendTrains, "UDP_SEGMENT", "4.18", "sending UDP costs several times the CPU"),
    about(Feature::ReceiveTrains, "UDP_GRO", "5.0", "receiving UDP costs several times the CPU"),
];

const fn about(
    feature: Feature,
    name: &'static str,
    since: &'static str,
    without: &'static str,
) -> About {
    About { feature, name, since, without }
}

impl Feature {
    /// All of them, in a fixed order.
    pub fn all() -> impl Iterator<Item = Feature> {
        ABOUT.iter().map(|about| about.feature)
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        ABOUT[self as usize].name
    }
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u32);

impl Features {
    /// Whether the feature is in the set.
    #[inline]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u32) != 0
    }

    fn clear(&mut self, feature: Feature) {
        self.0 &= !(1 << feature as u32);
    }

    fn set(&mut self, feature: Feature, present: bool) {
        if present {
            self.0 |= 1 << feature as u32;
        }
    }
}

/// What a probe pretends not to see. The default hides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeMask {
    hidden: u32,
    kernel: Option<KernelVersion>,
    refusal: Option<i32>,
}

impl ProbeMask {
    /// Hides one more feature.
    #[must_use]
    pub const fn without(mut self, feature: Feature) -> Self {
        self.hidden |= 1 << feature as u32;
        self
    }

    /// Pretends another kernel version.
    #[must_use]
    pub const fn as_kernel(mut self, major: u32, minor: u32) -> Self {
        self.kernel = Some(KernelVersion { major, minor });
        self
    }

    /// Pretends that setting up a ring fails with this (positive) error number.
    #[must_use]
    pub const fn refused_with(mut self, errno: i32) -> Self {
        self.refusal = Some(errno);
        self
    }
}

/// The first two numbers of a kernel release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// 6 in 6.1.
    pub major: u32,
    /// 1 in 6.1.
    pub minor: u32,
}

impl KernelVersion {
    /// The oldest kernel we run on.
    pub const OLDEST: KernelVersion = KernelVersion { major: 6, minor: 1 };
    /// The first on which rings with DEFER_TASKRUN hear messages of other rings reliably.
    const RING_TO_RING: KernelVersion = KernelVersion { major: 6, minor: 3 };

    /// Reads "6.18.44-anything"; what is not a number counts as zero.
    pub fn parse(release: &str) -> KernelVersion {
        let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
        let mut next = || numbers.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        KernelVersion { major: next(), minor: next() }
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the ring of a shard is charged as locked memory, about: its queues, and a page of the list
/// of its buffers. Linux charges them since 6.14, and nothing to who has `CAP_IPC_LOCK`.
const LOCKED_BYTES: usize = 256 << 10;

/// Why there will be no ring. Every variant is the host's doing, and says what to do there.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The kernel, a container or a policy forbids io_uring.
    #[error(
        "io_uring is refused ({0}). If it is switched off, try `sysctl \
         kernel.io_uring_disabled=0`; in a container the default seccomp profile forbids it: \
         start it with `--security-opt seccomp=unconfined`, or with a profile that allows \
         io_uring_setup, io_uring_enter and io_uring_register",
        source_text(*.errno)
    )]
    Refused {
        /// EPERM, EACCES or ENOSYS.
        errno: i32,
    },
    /// The kernel is older than what we can run on.
    #[error("kernel {found} is too old: {} or newer is needed", KernelVersion::OLDEST)]
    KernelTooOld {
        /// What runs.
        found: KernelVersion,
    },
    /// The limit of locked memory does not hold a ring.
    #[error(
        "the limit of locked memory ({limit} bytes) is too low for io_uring: a shard needs about \
         {} KiB of it, and all processes of a user share it; try `ulimit -l unlimited`, \
         `LimitMEMLOCK=infinity` in the systemd unit, or `--ulimit memlock=-1` for a container",
        LOCKED_BYTES >> 10
    )]
    MemlockTooLow {
        /// The soft limit in bytes.
        limit: u64,
    },
    /// No file descriptor is left for a ring.
    #[error(
        "out of file descriptors (limit {limit}): try `ulimit -n 1048576`, or \
         `LimitNOFILE=1048576` in the systemd unit"
    )]
    OutOfFiles {
        /// The soft limit.
        limit: u64,
    },
    /// The kernel is new enough but lacks something we cannot do without.
    #[error("this kernel lacks {name}, which is needed; run an unmodified Linux 6.1 or newer")]
    Missing {
        /// What is missing.
        name: &'static str,
    },
    /// Anything else that should not happen.
    #[error("{what} failed: {source}")]
    Failed {
        /// What was attempted.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn source_text(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl SetupError {
    /// Sorts what `io_uring_setup` says by who must act.
    pub(crate) fn from_setup(error: &io::Error) -> SetupError {
        match error.raw_os_error() {
            Some(errno @ (libc::EPERM | libc::EACCES | libc::ENOSYS)) => {
                SetupError::Refused { errno }
            }
            Some(libc::ENOMEM) if host::locked_memory_limit().soft != u64::MAX => {
                SetupError::MemlockTooLow { limit: host::locked_memory_limit().soft }
            }
            Some(libc::EMFILE | libc::ENFILE) => {
                SetupError::OutOfFiles { limit: host::open_files_limit().soft }
            }
            other => {
                let source = io::Error::from_raw_os_error(other.unwrap_or(libc::EIO));
                SetupError::Failed { what: "setting up a ring", source }
            }
        }
    }
}

/// Whether a feature is used, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// Present and used.
    Used,
    /// The kernel does not have it.
    Missing,
    /// It may be there; a mask hides it.
    Hidden,
}

/// One line of a report.
#[derive(Clone, Debug)]
pub struct ReportRow {
    /// What it is about.
    pub feature: Feature,
    /// Its name, for people.
    pub name: &'static str,
    /// Whether it is used.
    pub state: RowState,
    /// What its absence costs.
    pub without: &'static str,
    /// What to do; empty if there is nothing to do.
    pub remedy: String,
}

/// What a probe found.
#[derive(Clone, Debug)]
pub struct Report {
    /// As `uname -r` prints it.
    pub kernel_release: String,
    /// Its first two numbers.
    pub kernel: KernelVersion,
    /// What will be used.
    pub features: Features,
    /// One row per feature.
    pub rows: Vec<ReportRow>,
    /// The limit of locked memory.
    pub locked_memory: Limit,
    /// The limit of open files.
    pub open_files: Limit,
}

/// One line: the kernel, what is used of it, and what is done without at which price.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring on Linux {}", self.kernel_release)?;
        let used = self.rows.iter().filter(|row| row.state == RowState::Used);
        for (index, row) in used.enumerate() {
            write!(f, "{}{}", if index == 0 { ": uses " } else { ", " }, row.name)?;
        }
        let without = self.rows.iter().filter(|row| row.state != RowState::Used);
        for (index, row) in without.enumerate() {
            let before = if index == 0 { "; does without " } else { ", " };
            write!(f, "{before}{} ({})", row.name, row.without)?;
        }
        Ok(())
    }
}

/// Finds out what the kernel offers.
///
/// # Errors
/// When it lacks what we cannot do without, or refuses; the error names the remedy.
pub fn probe(mask: ProbeMask) -> Result<Report, SetupError> {
    let kernel_release = host::kernel_release();
    let kernel = mask.kernel.unwrap_or_else(|| KernelVersion::parse(&kernel_release));
    // First of all: a kernel without io_uring refuses it as a container does.
    if kernel < KernelVersion::OLDEST {
        return Err(SetupError::KernelTooOld { found: kernel });
    }
    let uring = first_ring(mask)?;
    require_operations(&uring)?;
    let present = features_of(&uring, kernel)?;
    let features = usable(Features(present.0 & !mask.hidden));
    if !features.has(Feature::BufferRings) {
        return Err(SetupError::Missing { name: Feature::BufferRings.name() });
    }
    Ok(Report {
        rows: rows_of(present, features, mask),
        kernel_release,
        kernel,
        features,
        locked_memory: host::locked_memory_limit(),
        open_files: host::open_files_limit(),
    })
}

/// A builder that asks for what the features say and nothing else.
pub(crate) fn builder(features: Features) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_submit_all();
    if features.has(Feature::SingleIssuer) {
        builder.setup_single_issuer();
    }
    if features.has(Feature::DeferTaskrun) {
        builder.setup_defer_taskrun();
    } else if features.has(Feature::CoopTaskrun) {
        builder.setup_coop_taskrun();
    }
    if features.has(Feature::TaskrunFlag) {
        builder.setup_taskrun_flag();
    }
    if features.has(Feature::NoSqArray) {
        builder.setup_no_sqarray();
    }
    builder
}

/// Drops what needs something that is not there.
fn usable(found: Features) -> Features {
    let mut features = found;
    if !features.has(Feature::SingleIssuer) {
        features.clear(Feature::DeferTaskrun);
    }
    if !features.has(Feature::DeferTaskrun) && !features.has(Feature::CoopTaskrun) {
        features.clear(Feature::TaskrunFlag);
    }
    features
}

fn first_ring(mask: ProbeMask) -> Result<IoUring, SetupError> {
    if let Some(errno) = mask.refusal {
        return Err(SetupError::from_setup(&io::Error::from_raw_os_error(errno)));
    }
    IoUring::new(8).map_err(|error| SetupError::from_setup(&error))
}

/// What every kernel since 6.1 has, unless somebody took it out.
fn require_operations(uring: &IoUring) -> Result<(), SetupError> {
    let mut probe = Probe::new();
    let source = |source| SetupError::Failed { what: "asking for io_uring's operations", source };
    uring.submitter().register_probe(&mut probe).map_err(source)?;
    let operations = [
        (opcode::Accept::CODE, "io_uring accept"),
        (opcode::Connect::CODE, "io_uring connect"),
        (opcode::Recv::CODE, "io_uring receive"),
        (opcode::Send::CODE, "io_uring send"),
        (opcode::AsyncCancel::CODE, "io_uring cancel"),
        (opcode::RecvMsg::CODE, "io_uring recvmsg"),
        (opcode::SendMsg::CODE, "io_uring sendmsg"),
        (opcode::PollAdd::CODE, "io_uring poll"),
        (opcode::Close::CODE, "io_uring close"),
    ];
    if let Some((_, name)) = operations.iter().find(|(code, _)| !probe.is_supported(*code)) {
        return Err(SetupError::Missing { name });
    }
    if !uring.params().is_feature_ext_arg() {
        return Err(SetupError::Missing { name: "io_uring waits with a timeout (EXT_ARG)" });
    }
    if !uring.params().is_feature_nodrop() {
        return Err(SetupError::Missing { name: "io_uring without lost completions (NODROP)" });
    }
    Ok(())
}

/// What came of a try. A limit of this process is nothing that the kernel lacks, and no reason to
/// do without something.
fn tried<T>(made: io::Result<T>) -> Result<Option<T>, SetupError> {
    match made.map_err(|error| SetupError::from_setup(&error)) {
        Ok(made) => Ok(Some(made)),
        Err(limit @ (SetupError::MemlockTooLow { .. } | SetupError::OutOfFiles { .. })) => {
            Err(limit)
        }
        Err(_) => Ok(None),
    }
}

fn features_of(uring: &IoUring, kernel: KernelVersion) -> Result<Features, SetupError> {
    let mut features = Features::default();
    let alone = [Feature::SingleIssuer, Feature::CoopTaskrun, Feature::NoSqArray];
    for feature in alone {
        let mut asked = Features::default();
        asked.set(feature, true);
        features.set(feature, tried(builder(asked).build(4))?.is_some());
    }
    for feature in [Feature::DeferTaskrun, Feature::TaskrunFlag] {
        let mut asked = features;
        asked.set(feature, true);
        features.set(feature, tried(builder(asked).build(4))?.is_some());
    }
    let mut probe = Probe::new();
    let asked = uring.submitter().register_probe(&mut probe).is_ok();
    let has_message = asked && probe.is_supported(opcode::MsgRingData::CODE);
    features.set(Feature::RingToRing, has_message && kernel >= KernelVersion::RING_TO_RING);
    features.set(Feature::NoIowait, uring.params().is_feature_no_iowait());
    // Came with 5.19, below our floor, and would need a listening socket to be tried.
    features.set(Feature::MultishotAccept, true);
    features.set(Feature::BufferRings, has_buffer_rings()?);
    features.set(Feature::MultishotReceive, has_multishot_receive()?);
    features.set(Feature::QuietSend, has_quiet_send()?);
    features.set(Feature::MultishotReceiveMessage, has_multishot_receive_message()?);
    let udp = DatagramSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), SocketMemory::default());
    if let Some(socket) = tried(udp)? {
        features.set(Feature::SendTrains, socket.can_cut());
        features.set(Feature::ReceiveTrains, socket.put_together().is_ok());
    }
    Ok(features)
}

fn has_buffer_rings() -> Result<bool, SetupError> {
    let Some(buffers) = tried(BufRing::new(Group::First, 8, 64))? else { return Ok(false) };
    let Some(uring) = tried(IoUring::new(4))? else { return Ok(false) };
    let registered = tried(buffers.register(&uring))?.is_some();
    // The ring is dropped, and with it the registration, before the buffers.
    drop(uring);
    Ok(registered)
}

/// Submits one request and returns the completions that are there when it has been consumed.
///
/// The memory that `entry` names outlives the ring: the callers drop the ring first.
fn answers(uring: &mut IoUring, entry: &squeue::Entry, wait: usize) -> Vec<cqueue::Entry> {
    // SAFETY: see above; and every request made here ends at once or is waited for.
    let pushed = unsafe { uring.submission().push(entry) };
    if pushed.is_err() || uring.submit_and_wait(wait).is_err() {
        return Vec::new();
    }
    uring.completion().collect()
}

fn has_multishot_receive() -> Result<bool, SetupError> {
    let Some(buffers) = tried(BufRing::new(Group::First, 8, 64))? else { return Ok(false) };
    let Some((ours, theirs)) = tried(UnixStream::pair())? else { return Ok(false) };
    let Some(mut uring) = tried(IoUring::new(4))? else { return Ok(false) };
    let registered = tried(buffers.register(&uring))?.is_some();
    if !registered || io::Write::write(&mut &theirs, b"x").is_err() {
        return Ok(false);
    }
    let got = answers(&mut uring, &sq::receive(ours.as_raw_fd(), true, Group::First, Tag(0)), 1);
    // The peer goes first, so that the request ends before its ring does.
    drop(theirs);
    let ended = uring.submit_and_wait(1).is_ok();
    drop(uring);
    let many = |cqe: &cqueue::Entry| cqe.result() == 1 && cqueue::more(cqe.flags());
    Ok(ended && got.first().is_some_and(many))
}

fn has_multishot_receive_message() -> Result<bool, SetupError> {
    let group = Group::Datagrams;
    let Some(buffers) = tried(BufRing::new(group, 8, 512))? else { return Ok(false) };
    let mut receives = Receives::default();
    let Some((ours, theirs)) = tried(UnixDatagram::pair())? else { return Ok(false) };
    let Some(mut uring) = tried(IoUring::new(4))? else { return Ok(false) };
    let registered = tried(buffers.register(&uring))?.is_some();
    if !registered || theirs.send(b"x").is_err() {
        return Ok(false);
    }
    let slot = receives.begin(Asked { tag: Tag(0), group, again: true }, buffers.size());
    let (fd, message) = (ours.as_raw_fd(), receives.message(slot));
    let got = answers(&mut uring, &sq::receive_train(fd, message, true, group, slot), 1);
    // It ends before its ring does.
    let ended = answers(&mut uring, &sq::cancel_all(), 2).len() == 2;
    drop(uring);
    let whole = |cqe: &cqueue::Entry| cqe.result() == FRONT_BYTES as i32 + 1;
    let many = |cqe: &cqueue::Entry| whole(cqe) && cqueue::more(cqe.flags());
    Ok(ended && got.first().is_some_and(many))
}

/// Silence when everything was taken; the number of bytes when only a part was; EAGAIN when
/// nothing was. All three at once, after the submission, without waiting.
fn has_quiet_send() -> Result<bool, SetupError> {
    let Some((ours, theirs)) = tried(UnixStream::pair())? else { return Ok(false) };
    let much = vec![0u8; QUIET_PROBE_BYTES];
    let Some(mut uring) = tried(IoUring::new(4))? else { return Ok(false) };
    let fd = ours.as_raw_fd();
    let silent = answers(&mut uring, &sq::send_quietly(fd, &much[..64], 0), 0);
    let short = answers(&mut uring, &sq::send_quietly(fd, &much, 0), 0);
    let none = answers(&mut uring, &sq::send_quietly(fd, &much, 0), 0);
    drop(uring);
    drop(theirs);
    let is_short = |cqe: &cqueue::Entry| {
        let taken = cqe.result();
        0 < taken && (taken as usize) < much.len() || taken == -libc::EAGAIN
    };
    Ok(silent.is_empty()
        && matches!(short.as_slice(), [cqe] if is_short(cqe))
        && matches!(none.as_slice(), [cqe] if cqe.result() == -libc::EAGAIN))
}

/// More than any socket buffer takes at once.
const QUIET_PROBE_BYTES: usize = 32 << 20;

fn rows_of(present: Features, used: Features, mask: ProbeMask) -> Vec<ReportRow> {
    let row = |about: &About| {
        let state = if used.has(about.feature) {
            RowState::Used
        } else if present.has(about.feature) || mask.hidden & (1 << about.feature as u32) != 0 {
            RowState::Hidden
        } else {
            RowState::Missing
        };
        let remedy = match state {
            RowState::Used => String::new(),
            RowState::Hidden => "switched off by this process's configuration".into(),
            RowState::Missing => format!("run Linux {} or newer", about.since),
        };
        ReportRow {
            feature: about.feature,
            name: about.name,
            state,
            without: about.without,
            remedy,
        }
    };
    ABOUT.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of texts follows the enum, or a report would lie.
    #[test]
    fn every_feature_is_described() {
        for (index, about) in ABOUT.iter().enumerate() {
            assert_eq!(about.feature as usize, index, "{}", about.name);
        }
    }

    /// Releases as distributions write them.
    #[test]
    fn releases_are_read() {
        let version = |major, minor| KernelVersion { major, minor };
        assert_eq!(KernelVersion::parse("6.18.44-fc-v595"), version(6, 18));
        assert_eq!(KernelVersion::parse("6.1"), version(6, 1));
        assert_eq!(KernelVersion::parse("5.15.0-91-generic"), version(5, 15));
        assert_eq!(KernelVersion::parse("7-rc1"), version(7, 0));
        assert!(version(5, 19) < KernelVersion::OLDEST && version(10, 0) > KernelVersion::OLDEST);
    }

    /// This kernel serves; each feature hidden is reported as hidden and not used.
    #[test]
    fn hidden_features_are_not_used() {
        let all = probe(ProbeMask::default()).unwrap();
        assert!(all.features.has(Feature::DeferTaskrun), "{:?}", all.rows);
        for feature in Feature::all().filter(|feature| *feature != Feature::BufferRings) {
            let report = probe(ProbeMask::default().without(feature)).unwrap();
            assert!(!report.features.has(feature));
            let row = report.rows.iter().find(|row| row.feature == feature).unwrap();
            assert_ne!(row.state, RowState::Used);
            assert!(!row.remedy.is_empty() && !row.without.is_empty());
            let line = report.to_string();
            let (used, without) = line.split_once("; does without ").expect("it says so");
            assert!(without.contains(row.name) && !used.contains(row.name), "{line}");
        }
        let without = ProbeMask::default().without(Feature::SingleIssuer);
        assert!(!probe(without).unwrap().features.has(Feature::DeferTaskrun));
    }

    /// Each refusal is one message that names its remedy.
    #[test]
    fn refusals_name_their_remedy() {
        let says = |mask: ProbeMask| probe(mask).unwrap_err().to_string();
        let none = ProbeMask::default();
        for errno in [libc::EPERM, libc::ENOSYS] {
            let text = says(none.refused_with(errno));
            assert!(text.contains("sysctl kernel.io_uring_disabled=0"), "{text}");
            assert!(text.contains("--security-opt seccomp=unconfined"), "{text}");
        }
        let unlimited = host::locked_memory_limit().soft == u64::MAX;
        let remedy = if unlimited { "setting up a ring failed" } else { "ulimit -l" };
        assert!(says(none.refused_with(libc::ENOMEM)).contains(remedy));
        assert!(says(none.refused_with(libc::EMFILE)).contains("ulimit -n"));
        assert!(says(none.as_kernel(5, 15)).contains("kernel 5.15 is too old: 6.1"));
        let ancient = none.as_kernel(4, 18).refused_with(libc::ENOSYS);
        assert!(says(ancient).contains("kernel 4.18 is too old"));
        assert!(says(none.without(Feature::BufferRings)).contains("lacks buffer rings"));
    }
}
