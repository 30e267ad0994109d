//! `services`, `swap`, `register`, `unregister`: all of it through `/__sys__/services/`, so it works attached as well.

use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nexus::syscall::{Create, ServiceSpec, SwapMode, SwapOptions, SysSetattr, SysUnlink};
use nexus::{Op, VPath};
use serde_json::{Value, json};

use crate::args::{RegisterArgs, SwapArgs, UnregisterArgs};
use crate::failure::{Failure, Outcome};
use crate::output::one_line;
use crate::session::{Session, path};

const FOLDER: &str = "/__sys__/services";

/// How often it is looked at how far a trial is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn services(session: &Session) -> Outcome {
    for service in statuses(session).await?.as_array().into_iter().flatten() {
        if session.out.is_json() {
            session.out.json(service)?;
        } else {
            session.out.line(line(service))?;
        }
    }
    Ok(())
}

/// All services, by name, as the kernel shows them.
pub(crate) async fn statuses(session: &Session) -> Outcome<Value> {
    read(&session.nx.read(format!("{FOLDER}/.all")).await?)
}

/// The service of this name, as the kernel shows it.
pub(crate) async fn status(session: &Session, name: &str) -> Outcome<Value> {
    read(&session.nx.read(at(name)?).await?)
}

/// One service as a line: name, state, version, actor, what is odd about it.
fn line(service: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let (state, cause) = match &service["state"] {
        // One that says why: `{"restarting": {"cause": ..}}`.
        Value::Object(odd) => odd.iter().next().map_or_else(
            || ("-".to_owned(), None),
            |(state, why)| (state.clone(), why["cause"].as_str().map(str::to_owned)),
        ),
        state => (text(state), None),
    };
    let (version, number) = (text(&service["serving"]["version"]), &service["serving"]["number"]);
    let actor = &service["actor"];
    let counts =
        ["swaps", "failed_swaps", "swap_backs"].map(|count| service[count].as_u64().unwrap_or_default());
    let mut line = format!(
        "{} {state} {} {version} #{number} restarts {} queued {} swaps {}/{}/{}",
        text(&service["name"]),
        text(&service["factory"]),
        actor["restarts"].as_u64().unwrap_or_default(),
        actor["queued"].as_u64().unwrap_or_default(),
        counts[0],
        counts[1],
        counts[2],
    );
    for odd in [cause.as_deref(), service["last_failure"].as_str()].into_iter().flatten() {
        line.push_str(": ");
        line.push_str(&one_line(odd));
    }
    line
}

pub(crate) async fn register(session: &Session, args: RegisterArgs) -> Outcome {
    let at = at(&args.name)?;
    let call = SysSetattr::service(&at, &*args.factory, &*args.config).exclusive();
    let done = session.nx.send(call).await?;
    session.out.quiet(&json!({ "service": args.name, "created": done.created }))
}

pub(crate) async fn unregister(session: &Session, args: UnregisterArgs) -> Outcome {
    session.nx.send(SysUnlink::at(at(&args.name)?)).await?;
    session.out.quiet(&json!({ "service": args.name }))
}

pub(crate) async fn swap(session: &Session, args: SwapArgs) -> Outcome {
    let at = at(&args.name)?;
    let mut options = SwapOptions::new();
    options.mode = match (args.overlap, args.exclusive) {
        (true, _) => Some(SwapMode::Overlap),
        (_, true) => Some(SwapMode::Exclusive),
        _ => None,
    };
    options.shadow = args.shadow;
    options.limit = args.limit.map(Duration::from_secs);
    options.probation = args.probation.map(Duration::from_secs);
    let before = status(session, &args.name).await?;
    let serving = |what: &str| before[what].as_str().unwrap_or_default().to_owned();
    let factory = args.factory.unwrap_or_else(|| serving("factory"));
    // Who names no configuration wants the limits, or whatever it says, kept. Another factory could not read it.
    let kept = || if factory == serving("factory") { serving("config") } else { String::new() };
    let config = args.config.unwrap_or_else(kept);
    let mut call = SysSetattr::service(&at, "", "");
    call.create = Create::Never;
    call.service = Some(ServiceSpec::new(factory, config).swap(options));
    let done = match args.shadow {
        Some(calls) if calls > 0 => on_trial(session, &at, calls, session.nx.send(call)).await?,
        _ => session.nx.send(call).await?,
    };
    let report = serde_json::to_value(&done.service_swapped).map_err(|why| Failure::claim("swap", why))?;
    session.out.either(&report, said(&report))
}

/// Waits for `swap` while it is on trial in shadow. On a terminal it is shown how many calls have agreed.
async fn on_trial<T>(
    session: &Session,
    at: &VPath,
    calls: u32,
    swap: impl Future<Output = nexus::Result<T>>,
) -> nexus::Result<T> {
    if !io::stderr().is_terminal() {
        return swap.await;
    }
    let bar = ProgressBar::with_draw_target(Some(calls.into()), ProgressDrawTarget::stderr());
    let style =
        ProgressStyle::with_template("{spinner} on trial in shadow: {pos} of {len} calls agreed, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    session.out.set_bar(Some(bar.clone()));
    let showing = async {
        loop {
            // What cannot be read now may be the next time; the swap itself tells what is wrong.
            if let Ok(status) = session.nx.read(at).await
                && let Some(agreed) = read(&status).ok().and_then(|status| status["trial_agreed"].as_u64())
            {
                bar.set_position(agreed);
            }
            bar.tick();
            session.env().sleep(LOOK_EVERY).await;
        }
    };
    let done = match select(pin!(swap), pin!(showing)).await {
        Either::Left((done, _)) => done,
        Either::Right((never, _)) => never,
    };
    bar.finish_and_clear();
    session.out.set_bar(None);
    done
}

/// The report of a swap as one line. The factory is named when it is another one, and the calls that are still inside the old version when there are any.
fn said(report: &Value) -> String {
    let is_another = report["from"]["factory"] != report["to"]["factory"];
    let version = |side: &str| {
        let text = |what: &str| report[side][what].as_str().unwrap_or("-").to_owned();
        let factory = if is_another { text("factory") + " " } else { String::new() };
        format!("{factory}{} #{}", text("version"), report[side]["number"])
    };
    let left = match report["left"].as_u64() {
        None | Some(0) => String::new(),
        Some(left) => format!(" {left} still inside the old version,"),
    };
    let ms = |what: &Value| {
        let (whole, nanos) =
            (what["secs"].as_f64().unwrap_or_default(), what["nanos"].as_f64().unwrap_or_default());
        whole * 1e3 + nanos / 1e6
    };
    format!(
        "{} -> {}, {}: {} calls drained,{left} {} waited, longest pause {:.3} ms, {:.1} ms in all",
        version("from"),
        version("to"),
        report["mode"].as_str().unwrap_or("-"),
        report["drained"],
        report["waited"],
        ms(&report["pause"]),
        ms(&report["took"]),
    )
}

fn at(name: &str) -> Outcome<VPath> {
    Ok(path(Op::Service, &format!("{FOLDER}/{name}"))?)
}

fn read(bytes: &[u8]) -> Outcome<Value> {
    serde_json::from_slice(bytes).map_err(|why| Failure::claim("services", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_told_with_another_factory_and_with_who_is_still_inside() {
        let zero = json!({ "secs": 0, "nanos": 0 });
        let mut report = json!({
            "from": { "version": "1.0.0", "number": 2, "factory": "audit" },
            "to": { "version": "1.0.0", "number": 3, "factory": "audit" },
            "mode": "overlap", "drained": 4, "left": 0, "waited": 0, "pause": zero, "took": { "secs": 1, "nanos": 500_000 },
        });
        let rest = "0 waited, longest pause 0.000 ms, 1000.5 ms in all";
        assert_eq!(said(&report), format!("1.0.0 #2 -> 1.0.0 #3, overlap: 4 calls drained, {rest}"));
        report["to"]["factory"] = "quota".into();
        report["left"] = 7.into();
        let expected =
            "audit 1.0.0 #2 -> quota 1.0.0 #3, overlap: 4 calls drained, 7 still inside the old version,";
        assert_eq!(said(&report), format!("{expected} {rest}"));
    }
}
