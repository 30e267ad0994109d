//! The kernel in an actix application: `cargo run --example actix`.
//!
//! A handle is plain data to an actix actor: it is kept in the actor, and a handler gives a future that calls it. The kernel's own actors live
//! on other threads, so neither holds up the other.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use actix::{Actor, Context, Handler, Message, ResponseFuture, System};
use nexus::{Config, Nexus};

/// Keeps the orders of a shop.
struct Orders {
    nx: Nexus,
    next: u64,
}

impl Actor for Orders {
    type Context = Context<Self>;
}

/// Takes an order; its number is the reply.
struct Place(&'static str);

impl Message for Place {
    type Result = nexus::Result<u64>;
}

impl Handler<Place> for Orders {
    type Result = ResponseFuture<nexus::Result<u64>>;

    fn handle(&mut self, Place(what): Place, _: &mut Context<Self>) -> Self::Result {
        self.next += 1;
        let (nx, number) = (self.nx.clone(), self.next);
        Box::pin(async move {
            nx.write(format!("/orders/{number}"), what).await?;
            Ok(number)
        })
    }
}

async fn shop() -> Result<(), Box<dyn std::error::Error>> {
    let nx = nexus::connect(Config::in_memory()).await?;
    let orders = Orders { nx: nx.agent("shop")?, next: 0 }.start();

    let first = orders.send(Place("tea")).await??;
    let second = orders.send(Place("coffee")).await??;
    println!("orders {first} and {second} are kept");
    assert_eq!((first, second), (1, 2));
    assert_eq!(nx.read("/orders/1").await?, "tea");
    assert_eq!(nx.readdir("/orders").await?.len(), 2);

    nx.shutdown().await?;
    let refused = orders.send(Place("late")).await?;
    assert_eq!(refused.map_err(|error| error.errno()), Err(nexus::Errno::ESHUTDOWN));
    println!("an order after the end was refused");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    System::new().block_on(shop())?;
    println!("actix: done");
    Ok(())
}
