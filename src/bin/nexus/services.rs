//! `services`, `swap`, `register`, `unregister`: all of it through `/__sys__/services/`, so it works attached as well.

use std::time::Duration;

use nexus::syscall::{Create, ServiceSpec, SwapMode, SwapOptions, SysSetattr, SysUnlink};
use nexus::{Op, VPath};
use serde_json::{Value, json};

use crate::args::{RegisterArgs, SwapArgs, UnregisterArgs};
use crate::failure::{Failure, Outcome};
use crate::output::one_line;
use crate::session::{Session, path};

const FOLDER: &str = "/__sys__/services";

pub(crate) async fn services(session: &Session) -> Outcome {
    let all = session.nx.read(format!("{FOLDER}/.all")).await?;
    for service in read(&all)?.as_array().into_iter().flatten() {
        if session.out.is_json() {
            session.out.json(service)?;
        } else {
            session.out.line(line(service))?;
        }
    }
    Ok(())
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
    let before = read(&session.nx.read(&at).await?)?;
    let serving = |what: &str| before[what].as_str().unwrap_or_default().to_owned();
    let factory = args.factory.unwrap_or_else(|| serving("factory"));
    // Who names no configuration wants the limits, or whatever it says, kept. Another factory could not read it.
    let kept = || if factory == serving("factory") { serving("config") } else { String::new() };
    let config = args.config.unwrap_or_else(kept);
    let mut call = SysSetattr::service(&at, "", "");
    call.create = Create::Never;
    call.service = Some(ServiceSpec::new(factory, config).swap(options));
    let done = session.nx.send(call).await?;
    let report = serde_json::to_value(&done.service_swapped).map_err(|why| Failure::claim("swap", why))?;
    let version = |side: &str| {
        format!("{} #{}", report[side]["version"].as_str().unwrap_or("-"), report[side]["number"])
    };
    let ms = |what: &Value| {
        let (whole, nanos) =
            (what["secs"].as_f64().unwrap_or_default(), what["nanos"].as_f64().unwrap_or_default());
        whole * 1e3 + nanos / 1e6
    };
    let says = format!(
        "{} -> {}, {}: {} calls drained, {} waited, longest pause {:.3} ms, {:.1} ms in all",
        version("from"),
        version("to"),
        report["mode"].as_str().unwrap_or("-"),
        report["drained"],
        report["waited"],
        ms(&report["pause"]),
        ms(&report["took"]),
    );
    session.out.either(&report, says)
}

fn at(name: &str) -> Outcome<VPath> {
    Ok(path(Op::Service, &format!("{FOLDER}/{name}"))?)
}

fn read(bytes: &[u8]) -> Outcome<Value> {
    serde_json::from_slice(bytes).map_err(|why| Failure::claim("services", why))
}
