//! The oracle's process: starts kernels, kills them, and looks at what they left.

use std::error::Error;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use nexus::{Env, HostConfig};
use nexus_drivers::faults::Faults;

use crate::Args;
use crate::kernel::{config, setting};
use crate::life::prepare;
use crate::model::Ledger;
use crate::oracle::verify;
use crate::plan::{End, Life, PROCESS_KILLS, Plan};
use crate::record::Record;
use crate::report::Report;

/// How long a kernel may take to serve, or to end beyond its life, before it counts as hung.
const BOOT_MAX: Duration = Duration::from_secs(120);
const END_MAX: Duration = Duration::from_secs(300);

/// Runs the plan of a seed. True when every claim held.
pub(crate) fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let env = Env::host(HostConfig::default())?;
    let seed = args.seed.unwrap_or_else(|| env.wall());
    let args = Args { seed: Some(seed), ..args.clone() };
    let temporary = tempfile::Builder::new().prefix("nexus-chaos-").tempdir()?;
    let folder = temporary.path().to_owned();
    let mut report = Report::new(seed, args.seconds);
    let done = env.blocking_wait(Box::pin(all_lives(&env, &args, &folder, &mut report)));
    env.stop();
    if done.is_err() || !report.holds() {
        // What is left is evidence.
        let kept = temporary.keep();
        writeln!(std::io::stderr(), "chaos: seed {seed} failed; what it left is in {}", kept.display())?;
    }
    done?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(report.holds())
}

async fn all_lives(env: &Env, args: &Args, folder: &Path, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let plan = Plan::new(report.seed, Duration::from_secs(args.seconds));
    for name in ["plain", "bad"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    let nx = nexus::connect(config(folder, &Faults::new())?).await?;
    prepare(&nx, &setting(folder)).await?;
    nx.shutdown().await?;

    let bar = progress(args.seconds);
    let mut ledger = Ledger::new();
    for (number, life) in plan.lives.iter().enumerate() {
        let child = start(args, number, folder, &ledger)?;
        let ended = listen(env, child, life, number, &mut ledger, report, &bar).await?;
        match life.end {
            End::Killed if ended => {
                report.broken.push(format!("life {number}: the process ended before it was killed"));
            }
            End::Killed => report.process_kills += 1,
            End::RootDies => report.root_kills += 1,
            End::InOrder => {}
        }
        // The folder is free, and everything is as was told: through a kernel that knows nothing.
        let nx = nexus::connect(config(folder, &Faults::new())?).await?;
        let wrong = verify(&nx, env, &mut ledger, false).await;
        report.broken.extend(wrong.into_iter().map(|wrong| format!("after life {number}: {wrong}")));
        report.verified += 1;
        nx.shutdown().await?;
        if report.broken.len() > 100 {
            break;
        }
    }
    bar.finish_and_clear();
    report.judge(PROCESS_KILLS as u64);
    Ok(())
}

fn start(args: &Args, number: usize, folder: &Path, ledger: &Ledger) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    let seed = args.seed.unwrap_or_default();
    command.args(["--seed", &seed.to_string(), "--seconds", &args.seconds.to_string()]);
    command.args(["--life", &number.to_string()]).arg("--folder").arg(folder);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(ledger)?)?;
    }
    Ok(child)
}

/// Hears a kernel's process out, and kills it when its time has come. True when it ended by itself.
async fn listen(
    env: &Env,
    mut child: Child,
    &Life { end, lasts, .. }: &Life,
    number: usize,
    ledger: &mut Ledger,
    report: &mut Report,
    bar: &ProgressBar,
) -> Result<bool, Box<dyn Error>> {
    let out = child.stdout.take().ok_or("the kernel's process has no output")?;
    let (records, heard) = flume::unbounded();
    let pool = env.pool("chaos-listen", 1, 1);
    let listening = pool.run(move || {
        for line in BufReader::new(out).split(b'\n') {
            // A line that was cut off by the kill says nothing.
            let Ok(record) = line.map_err(drop).and_then(|line| serde_json::from_slice(&line).map_err(drop))
            else {
                continue;
            };
            if records.send(record).is_err() {
                break;
            }
        }
    });
    let mut ended = false;
    let hearing = async {
        let mut until = env.now() + BOOT_MAX;
        let mut killed = false;
        loop {
            let left = until.saturating_duration_since(env.now());
            match env.timeout(left, heard.recv_async()).await {
                Ok(Ok(record)) => {
                    match record {
                        Record::Ready { .. } if end == End::Killed => until = env.now() + lasts,
                        Record::Ready { .. } => until = env.now() + lasts + END_MAX,
                        Record::Over => ended = true,
                        _ => {}
                    }
                    ledger.hear(&record);
                    report.hear(number, &record);
                    if matches!(record, Record::Did(_)) {
                        bar.set_message(report.progress());
                        bar.tick();
                    }
                }
                // All was read that it wrote.
                Ok(Err(_)) => break,
                Err(_) if killed => {}
                Err(_) => {
                    killed = true;
                    until = env.now() + END_MAX;
                    // It may have ended by itself.
                    let _ = child.kill();
                    if end != End::Killed {
                        report.broken.push(format!("life {number}: the kernel's process hung"));
                    }
                }
            }
        }
        killed
    };
    let (listened, killed) = futures_util::future::join(listening, hearing).await;
    listened?;
    let exit = child.wait()?;
    bar.inc(lasts.as_secs());
    if !killed && !exit.success() {
        report.broken.push(format!("life {number}: the kernel's process ended by itself: {exit}"));
    }
    Ok(ended)
}

/// Drawn on a terminal alone.
fn progress(seconds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(seconds);
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {wide_bar} {msg}") {
        bar.set_style(style);
    }
    bar
}
