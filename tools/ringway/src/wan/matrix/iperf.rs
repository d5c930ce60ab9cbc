//! One connection of iperf3, and what its receiver got.

use std::time::Duration;

use serde_json::Value;

use super::child::{Program, Stopped};
use super::contestant::Route;
use crate::failure::Failure;
use crate::signals::Stop;

/// Where the receiver listens.
pub(super) const PORT: u16 = 5201;
/// How long a connection takes.
#[derive(Clone, Copy)]
pub(super) struct Times {
    /// What does not count, at the beginning.
    pub(super) before: Duration,
    /// What counts.
    pub(super) time: Duration,
    /// What iperf3 may take beside: its own connection crosses the same link. What has not come to
    /// an end then has failed.
    pub(super) patience: Duration,
}

/// What came of a connection.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Got {
    /// Payload, after the beginning.
    pub(super) mbit_per_s: f64,
    /// All payload, the beginning included.
    pub(super) bytes: u64,
    /// Why it came to nothing, if it did.
    pub(super) failed: Option<String>,
}

impl Got {
    fn nothing(why: impl Into<String>) -> Got {
        Got { failed: Some(why.into()), ..Got::default() }
    }
}

/// Sends from the first namespace.
pub(super) fn run(
    spaces: &[String; 2],
    route: &Route,
    Times { before, time, patience }: Times,
    stop: &Stop,
) -> Result<Got, Stopped> {
    let port = PORT.to_string();
    let mut server = Program::start(&spaces[1], &["iperf3", "-s", "-1", "-J", "-p", &port])?;
    server.until_listening(PORT, stop)?;
    let seconds = time.as_secs().to_string();
    let omit = before.as_secs().to_string();
    let to = route.to.ip().to_string();
    let port = route.to.port().to_string();
    let mut words = vec!["iperf3", "-c", &to, "-p", &port, "-t", &seconds, "-O", &omit, "-J"];
    words.push("--get-server-output");
    if let Some(congestion) = route.congestion {
        words.extend(["-C", congestion]);
    }
    let mut client = Program::start(&spaces[0], &words)?;
    let most = before + time + patience;
    if !client.until_ended(most, stop)? {
        let seconds = most.as_secs();
        return Ok(Got::nothing(format!("iperf3 did not come to an end within {seconds} s")));
    }
    let said = client.output();
    read(&said).map_err(|why| {
        let complaint = client.last_words();
        Stopped::Failed(Failure::Host(format!("iperf3 says what cannot be read: {why}{complaint}")))
    })
}

/// What the receiver got, by what iperf3 says. A connection that failed is a result, too.
fn read(said: &str) -> Result<Got, String> {
    let value: Value = serde_json::from_str(said).map_err(|error| error.to_string())?;
    let receiver = &value["server_output_json"];
    let (mut all, mut bytes, mut seconds) = (0, 0, 0.0);
    for interval in receiver["intervals"].as_array().into_iter().flatten() {
        let sum = &interval["sum"];
        let got = sum["bytes"].as_u64().unwrap_or(0);
        all += got;
        if sum["omitted"] == Value::Bool(false) {
            bytes += got;
            // Since the beginning was over. An interval's own `seconds` may have some of that.
            seconds = sum["end"].as_f64().unwrap_or(seconds);
        }
    }
    if seconds > 0.0 {
        return Ok(Got { mbit_per_s: bytes as f64 * 8e-6 / seconds, bytes: all, failed: None });
    }
    match value["error"].as_str().or(receiver["error"].as_str()) {
        Some(why) => Ok(Got::nothing(why)),
        None => Err("the receiver has no intervals. ".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receiver_counts_after_the_beginning() {
        let said = r#"{"server_output_json": {"intervals": [
            {"sum": {"bytes": 9000000, "end": 1.0, "seconds": 1.0, "omitted": true}},
            {"sum": {"bytes": 1000000, "end": 1.0, "seconds": 1.996, "omitted": false}},
            {"sum": {"bytes": 3000000, "end": 2.0, "seconds": 1.0, "omitted": false}}]}}"#;
        let got = Got { mbit_per_s: 16.0, bytes: 13_000_000, failed: None };
        assert_eq!(read(said), Ok(got));
        let failed = read(r#"{"error": "unable to connect"}"#).expect("a result");
        assert_eq!(failed, Got::nothing("unable to connect"));
        assert!(read("{}").is_err() && read("").is_err());
    }
}
