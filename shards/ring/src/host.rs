//! Small questions to the kernel: what time is it, which cores are ours, how many files may be
//! open. Each is one system call or two; none is on the hot path but the clock, which the vDSO
//! answers without entering the kernel.

use std::io;

use ringway_core::{Moment, Span};

/// Now, on the clock that also runs while the machine sleeps (CLOCK_BOOTTIME).
#[inline]
pub fn now() -> Moment {
    Moment(read_clock(libc::CLOCK_BOOTTIME))
}

/// The CPU time this thread has used.
pub fn thread_cpu() -> Span {
    Span(read_clock(libc::CLOCK_THREAD_CPUTIME_ID))
}

fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec into a local that outlives the call.
    let done = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(done, 0, "clock {clock} has existed since Linux 2.6.39");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The cores this thread may run on, in ascending order. Inside a container these are fewer than
/// the machine has.
///
/// # Errors
/// When the kernel numbers its cores beyond 1023.
pub fn cores() -> io::Result<Vec<usize>> {
    // SAFETY: `cpu_set_t` is an array of integers, for which all zero bits is a value: no core.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes at most the stated size into the local set.
    let done = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: reads bits of the local set; every index is below its size.
    Ok((0..libc::CPU_SETSIZE as usize)
        .filter(|core| unsafe { libc::CPU_ISSET(*core, &set) })
        .collect())
}

/// Binds the calling thread to one core.
///
/// # Errors
/// When the core does not exist or is not among [`cores`].
pub fn pin_to(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: as in `cores`: all zero bits is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: sets a bit of the local set; the index was checked against its size.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: reads the local set during the call.
    let done = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the calling thread run before every ordinary one, whenever it has something to do, and
/// takes no processor from those that were put before others in the same way. What it starts does
/// not inherit that.
///
/// # Errors
/// Without CAP_SYS_NICE, or where a control group forbids it.
pub fn run_first() -> io::Result<()> {
    let least = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: reads one `sched_param`, a local that outlives the call; 0 is the calling thread.
    let done = unsafe { libc::sched_setscheduler(0, policy, &least) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A resource limit as it stands: what counts now, and how far it may be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What the kernel enforces; `u64::MAX` is no limit.
    pub soft: u64,
    /// What an unprivileged process may raise it to.
    pub hard: u64,
}

/// How many files the process may have open.
pub fn open_files_limit() -> Limit {
    limit(libc::RLIMIT_NOFILE)
}

/// How many bytes the process may lock in memory.
pub fn locked_memory_limit() -> Limit {
    limit(libc::RLIMIT_MEMLOCK)
}

/// Raises the number of files that may be open as far as it goes: to the machine's own bound
/// (`fs.nr_open`) if we are privileged, else to the hard limit. Returns what now holds.
pub fn raise_open_files_limit() -> Limit {
    let before = open_files_limit();
    let machine = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(before.hard);
    for goal in [machine, before.hard] {
        let wanted = libc::rlimit { rlim_cur: goal, rlim_max: goal.max(before.hard) };
        // SAFETY: reads one rlimit from a local that outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } == 0 {
            break;
        }
    }
    open_files_limit()
}

fn limit(resource: libc::__rlimit_resource_t) -> Limit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one rlimit into a local that outlives the call.
    let done = unsafe { libc::getrlimit(resource, &mut limit) };
    assert_eq!(done, 0, "resource {resource} has a limit on every Linux");
    Limit { soft: limit.rlim_cur, hard: limit.rlim_max }
}

/// Fills `bytes` with randomness fit for secrets. Blocks only before the kernel's pool has been
/// seeded once, early in boot.
pub fn fill_random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: writes at most `rest.len()` bytes into `rest`, which is borrowed for the call.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        if got > 0 {
            filled += got as usize;
        } else {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EINTR), "getrandom: {error}");
        }
    }
}

/// The release of the running kernel, as `uname -r` prints it.
pub fn kernel_release() -> String {
    // SAFETY: `utsname` is arrays of characters, for which all zero bits is a value.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: writes one utsname into a local that outlives the call.
    let done = unsafe { libc::uname(&mut name) };
    assert_eq!(done, 0, "uname fails only for a bad address");
    let release = name.release.iter().take_while(|letter| **letter != 0);
    release.map(|letter| char::from(*letter as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two clocks measure different things: waiting costs time, not CPU.
    #[test]
    fn waiting_costs_no_cpu() {
        let (start, cpu) = (now(), thread_cpu());
        let bell = crate::Bell::new().unwrap();
        let mut poll = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
        poll.fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&bell));
        // SAFETY: reads and writes one pollfd, a local that outlives the call.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 30) }, 0, "nobody rings");
        assert!(now().since(start) >= Span::from_ms(30));
        assert!(thread_cpu().0 - cpu.0 < Span::from_ms(20).0);
    }

    /// A pinned thread sees exactly its own core, and a core that does not exist is an error.
    #[test]
    fn a_thread_is_pinned_to_one_core() {
        let last = *cores().unwrap().last().unwrap();
        let seen = std::thread::spawn(move || {
            pin_to(last).unwrap();
            assert!(pin_to(1 << 20).is_err());
            cores().unwrap()
        });
        assert_eq!(seen.join().unwrap(), vec![last]);
    }

    /// Whether a thread may go first is the host's to say; if so, the kernel says that it does, and
    /// what the thread starts does not.
    #[test]
    fn a_thread_goes_first_where_it_may() {
        let policy = |what: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{what}/stat")).unwrap();
            stat.rsplit(") ").next().unwrap().split(' ').nth(38).unwrap().to_owned()
        };
        let seen = std::thread::spawn(move || {
            let done = run_first();
            let child = std::thread::spawn(move || policy("thread-self")).join().unwrap();
            (done.is_ok(), policy("thread-self"), child)
        });
        let (done, own, child) = seen.join().unwrap();
        let first = libc::SCHED_FIFO.to_string();
        assert_eq!(own == first, done, "{own}");
        assert_ne!(child, first);
    }

    /// Two secrets drawn in a row differ; a draw that silently fails would repeat zeros.
    #[test]
    fn randomness_differs() {
        let (mut one, mut two) = ([0u8; 300], [0u8; 300]);
        fill_random(&mut one);
        fill_random(&mut two);
        assert_ne!(one, two);
        assert_ne!(one, [0u8; 300]);
    }

    /// Raising stops at the hard limit unless we are privileged, and never lowers.
    #[test]
    fn the_file_limit_only_rises() {
        let before = open_files_limit();
        let after = raise_open_files_limit();
        assert!(after.soft >= before.soft.max(before.hard));
    }
}
