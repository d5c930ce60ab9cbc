//! What the operating system knows about a process: CPU time to the nanosecond, and memory.
//!
//! CPU time is what the scheduler has counted for each thread (`schedstat`), compared thread by
//! thread: one that ends between two readings takes only its own time with it, so a span is never
//! less than what the threads used that lived through it. A running thread's count is as old as
//! its last tick, a few milliseconds at most: noise over a window of seconds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use crate::error::LoadError;

/// A process that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: u32,
}

/// CPU time of each thread of a process at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTimes {
    ns_by_task: BTreeMap<OsString, u64>,
}

impl CpuTimes {
    /// CPU time used since an earlier reading of the same process.
    pub(crate) fn since(&self, earlier: &CpuTimes) -> u64 {
        let before = |task| earlier.ns_by_task.get(task).copied().unwrap_or(0);
        self.ns_by_task.iter().map(|(task, now)| now.saturating_sub(before(task))).sum()
    }
}

impl Process {
    /// The process with this id, if its counters can be read.
    pub(crate) fn new(pid: u32) -> Result<Process, LoadError> {
        let process = Process { pid };
        process.cpu_times()?;
        process.rss_bytes()?;
        Ok(process)
    }

    /// CPU time that each thread of the process has used.
    pub(crate) fn cpu_times(&self) -> Result<CpuTimes, LoadError> {
        let read = || -> io::Result<CpuTimes> {
            let mut times = CpuTimes::default();
            for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
                let task = task?;
                times.ns_by_task.insert(task.file_name(), thread_ns(&task.path())?);
            }
            Ok(times)
        };
        read().map_err(|source| LoadError::Process { pid: self.pid, source })
    }

    /// Memory of the process that is in RAM.
    pub(crate) fn rss_bytes(&self) -> Result<u64, LoadError> {
        let path = format!("/proc/{}/status", self.pid);
        let found = fs::read_to_string(path).and_then(|text| {
            field_kib(&text, "VmRSS:").ok_or_else(|| io::Error::other("no VmRSS: a kernel thread"))
        });
        found.map(|kib| kib * 1024).map_err(|source| LoadError::Process { pid: self.pid, source })
    }
}

/// A thread that has just ended counts as zero.
fn thread_ns(task: &Path) -> io::Result<u64> {
    match fs::read_to_string(task.join("schedstat")) {
        Ok(text) => {
            text.split_whitespace().next().and_then(|ns| ns.parse().ok()).ok_or_else(|| {
                io::Error::other("no schedstat: the kernel keeps no scheduler counters")
            })
        }
        Err(error) if error.raw_os_error() == Some(3) => Ok(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !task.exists() => Ok(0),
        Err(error) => Err(error),
    }
}

/// Kernel memory: what all slabs and all TCP buffers of this host take.
pub(crate) fn kernel_bytes() -> u64 {
    let slab = fs::read_to_string("/proc/meminfo").ok().and_then(|text| field_kib(&text, "Slab:"));
    let tcp = fs::read_to_string("/proc/net/sockstat").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("TCP:"))?;
        line.split_once(" mem ")?.1.trim().parse::<u64>().ok()
    });
    slab.unwrap_or(0) * 1024 + tcp.unwrap_or(0) * 4096
}

fn field_kib(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::gettid;
    use rustix::time::{ClockId, clock_gettime};
    use std::hint::black_box;

    /// Work that a thread does shows up, about as much of it as the thread's own clock says.
    #[test]
    fn work_is_counted() {
        let task = format!("/proc/self/task/{}", gettid());
        let counted_ns = || thread_ns(Path::new(&task)).expect("readable");
        let clock_ns = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
        };
        let (before, clock_before) = (counted_ns(), clock_ns());
        while clock_ns() - clock_before < 100_000_000 {
            black_box((0..10_000u64).fold(0, |sum, n| black_box(sum + n)));
        }
        let used = counted_ns() - before;
        assert!((80_000_000..130_000_000).contains(&used), "{used} ns of about 100 ms");
        let me = Process::new(std::process::id()).expect("readable");
        assert!(me.cpu_times().expect("readable").since(&CpuTimes::default()) >= used);
        assert!(me.rss_bytes().expect("readable") > 500_000);
    }

    /// A thread that ends meanwhile takes its own time with it, not that of the others.
    #[test]
    fn an_ended_thread_leaves_the_others_their_time() {
        let times = |tasks: &[(&str, u64)]| CpuTimes {
            ns_by_task: tasks.iter().map(|(task, ns)| ((*task).into(), *ns)).collect(),
        };
        let before = times(&[("1", 500), ("2", 9_000)]);
        assert_eq!(times(&[("1", 700), ("3", 40)]).since(&before), 240);
    }

    /// A process that is not there is said to be so, with its number.
    #[test]
    fn a_missing_process_is_named() {
        let error = Process::new(u32::MAX).expect_err("no such process");
        assert!(error.to_string().contains("process 4294967295"), "{error}");
    }
}
