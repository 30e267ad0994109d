//! The kernel in a program without `async`: `cargo run --example synchronous`.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::thread;

use nexus::blocking::connect;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;

    let nx = connect(folder.path())?;
    thread::scope(|scope| {
        let writers: Vec<_> = (1..=3)
            .map(|number| {
                let agent = nx.agent(format!("agent-{number}"))?;
                Ok(scope.spawn(move || agent.write(format!("/notes/{number}.txt"), "remember the milk\n")))
            })
            .collect::<nexus::Result<_>>()?;
        writers.into_iter().try_for_each(|writer| writer.join().map_or(Ok(()), |written| written.map(drop)))
    })?;
    nx.edit("/notes/2.txt", "milk", "bread")?;
    println!("3 threads wrote, and one file was edited");
    nx.shutdown()?;

    let nx = connect(folder.path())?;
    assert_eq!(nx.glob("/notes/*.txt")?.len(), 3);
    assert_eq!(nx.read("/notes/2.txt")?, "remember the bread\n");
    assert_eq!(&*nx.stat("/notes/3.txt")?.owner, "agent-3");
    println!("all of it was there after a restart");
    nx.shutdown()?;
    println!("synchronous: done");
    Ok(())
}
