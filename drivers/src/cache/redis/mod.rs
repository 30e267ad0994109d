//! A cache in a server that speaks the Redis protocol: Redis, Valkey, Dragonfly.
//!
//! Calls share one connection, on which they are pipelined; a listener has one of its own. A task keeps the former: it connects, asks for a sign of life from time to time,
//! and connects again, waiting longer each time. While there is no connection calls fail at once with the reason, so a dead server costs its callers microseconds; and
//! one that has let [`TIMEOUTS_MAX`] calls in a row run into their deadline is held for dead. Nothing waits for the server at the start.
//!
//! Relied on: the `redis` crate speaks the protocol, and nothing more. Its sockets, and its tasks for listeners, live on the I/O runtime of
//! [`Env`](nexus_actors::Env), which is tokio's; its deadlines, reconnection and retries are not used. Calls themselves can be polled by any executor.
//!
//! Not there: clusters. A value's size is bounded when it is put; of what others put under the same prefix no more than that is read.
//!
//! | file | what |
//! |---|---|
//! | `config.rs` | the settings, from a URL or by name |
//! | `secret.rs` | a password that nobody prints |
//! | `failure.rs` | what goes wrong, in our kinds |
//! | `breaker.rs` | when a server is held for dead, and how long it is left alone: pure |
//! | `link.rs` | the connection that calls share |
//! | `listening.rs` | listeners |
//! | `store.rs` | the store |

mod breaker;
mod config;
mod failure;
mod link;
mod listening;
mod store;

pub use breaker::TIMEOUTS_MAX;
pub use config::RedisConfig;
pub use store::RedisCache;
