//! The server as a whole: control plane and shards. The shards join here next.

use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;

use crate::admin::{Health, NodeView};
use crate::config::Config;
use crate::control::{self, Control, ControlError, ControlSettings, Runtime};
use crate::metrics::ShardView;

/// Why a server did not start, or did not stop as it should.
#[derive(Debug, Error)]
pub enum StartError {
    /// The control plane.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// A running server.
#[derive(Debug)]
pub struct Node {
    config: Config,
    control: Control,
}

struct Nothing;

impl NodeView for Nothing {
    fn shards(&self) -> Vec<ShardView> {
        Vec::new()
    }

    fn health(&self) -> Health {
        Health::Ready
    }
}

impl Node {
    /// Starts a server; returns when it serves.
    pub fn start(config: Config) -> Result<Node, StartError> {
        let settings = ControlSettings {
            state: config.state.clone(),
            admin: config.admin.clone(),
            lease_max: config.lease_max,
            runtime: Runtime::Auto,
        };
        let started = control::start(&settings, Arc::new(Nothing), Arc::new(|| {}))?;
        Ok(Node { config, control: started.control })
    }

    /// Where clients connect.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.config.listen]
    }

    /// What is printed when it serves.
    pub fn ready_line(&self) -> String {
        format!("ready listen={}", self.config.listen)
    }

    /// Begins to drain.
    pub fn stop(&self) {}

    /// Waits for the end.
    pub fn join(self) -> Result<(), StartError> {
        Ok(self.control.stop(true)?)
    }
}
