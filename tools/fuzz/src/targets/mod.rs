//! The targets, a file per part of the product.

pub mod claims;
pub mod coding;
pub mod conn;
pub mod native;
pub mod path;
pub mod resp;
pub mod server;
pub mod table;
pub mod tunnel;
pub mod tunnel_agent;
pub mod tunnel_config;
pub mod tunnel_edge;
pub mod tunnel_invite;
pub mod tunnel_opening;
pub mod tunnel_packets;
pub mod tunnel_planner;
