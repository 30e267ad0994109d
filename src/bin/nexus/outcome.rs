//! `outcome`: what became of an operation.

use nexus::{CommittedOp, Lsn, OPS_KEPT, OpId, OpOutcome, SysOutcome};
use serde_json::{Value, json};

use crate::args::OutcomeArgs;
use crate::failure::{Failure, Outcome, Status};
use crate::session::Session;

pub(crate) async fn outcome(session: &Session, args: OutcomeArgs) -> Outcome {
    let wrong = |_| Failure::Usage(format!("outcome: {:?} is no hexadecimal number", args.operation));
    let op_id = OpId(u128::from_str_radix(&args.operation, 16).map_err(wrong)?);
    let call = SysOutcome::of(op_id);
    let call = args.since.map_or(call.clone(), |since| call.since(Lsn(since)));
    let outcome = session.nx.send(call).await?;
    session.out.either(&told(&outcome), &outcome)?;
    session.out.ends_with(match outcome {
        OpOutcome::Committed(_) => Status::Done,
        OpOutcome::NotExecuted => Status::Failed,
        _ => Status::Unknown,
    });
    Ok(())
}

fn told(outcome: &OpOutcome) -> Value {
    let (name, mut told) = match outcome {
        OpOutcome::Committed(committed) => ("committed", of_committed(committed)),
        OpOutcome::UnderWay { op, path } => ("under_way", json!({"op": op.name(), "path": path})),
        OpOutcome::NotExecuted => ("not_executed", json!({})),
        OpOutcome::InDoubt => ("in_doubt", json!({})),
        OpOutcome::Forgotten { through } => ("forgotten", json!({"through": through})),
        _ => ("unknown", json!({})),
    };
    told["outcome"] = name.into();
    told["kept"] = OPS_KEPT.into();
    told
}

fn of_committed(committed: &CommittedOp) -> Value {
    let receipt = committed.receipt;
    let mut told = json!({
        "lsn": receipt.lsn,
        "durability": receipt.durability.name(),
        "op": committed.op.name(),
        "path": committed.path,
        "at": committed.at,
    });
    if let Some(to) = &committed.other {
        told["to"] = json!(to);
    }
    told
}
