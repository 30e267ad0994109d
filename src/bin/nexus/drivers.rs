//! `drivers`: what can be mounted, and what it takes.

use nexus::hal::{DriverFactory, DriverOption};
use serde_json::{Value, json};

use crate::args::DriversArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Output;

pub(crate) fn drivers(out: &Output, args: DriversArgs) -> Outcome {
    let catalogue = nexus_drivers::catalogue();
    let Some(name) = args.name else {
        let all: Vec<_> = catalogue.names().filter_map(|name| catalogue.get(name)).collect();
        let width = all.iter().map(|factory| factory.name().len()).max().unwrap_or_default();
        return all.iter().try_for_each(|factory| {
            let line = format!("{:<width$}  {}", factory.name(), kinds(&**factory).join(", "));
            out.either(&told(&**factory), line.trim_end())
        });
    };
    let Some(factory) = catalogue.get(&name) else {
        // It says which there are, or what brings this one.
        let error = catalogue.check(&nexus::MountSpec::new(&*name)).err();
        let why = error.map_or_else(|| format!("there is no driver {name:?}"), |error| error.to_string());
        return Err(Failure::Usage(format!("drivers: {why}")));
    };
    if out.is_json() {
        return out.json(&told(&*factory));
    }
    let (needed, others): (Vec<_>, Vec<_>) = factory.options().iter().partition(|option| option.required);
    needed.into_iter().chain(others).try_for_each(|option| out.line(line(option)))
}

/// What is not as with a folder on this machine.
fn kinds(factory: &dyn DriverFactory) -> Vec<&'static str> {
    let all = [
        (factory.is_connector(), "a connector"),
        (factory.elsewhere(), "on another machine"),
        (factory.volatile(), "ends with the process"),
        (factory.read_only(), "takes no changes"),
    ];
    all.into_iter().filter_map(|(is, said)| is.then_some(said)).collect()
}

fn line(option: &DriverOption) -> String {
    let needed = if option.required { " (needed)" } else { "" };
    format!("{}{needed}: {}", option.key, option.help)
}

fn told(factory: &dyn DriverFactory) -> Value {
    let option = |option: &DriverOption| {
        json!({
            "key": option.key,
            "required": option.required,
            "secret": option.secret,
            "help": option.help,
        })
    };
    json!({
        "name": factory.name(),
        "elsewhere": factory.elsewhere(),
        "volatile": factory.volatile(),
        "read_only": factory.read_only(),
        "connector": factory.is_connector(),
        "options": factory.options().iter().map(option).collect::<Vec<_>>(),
    })
}
