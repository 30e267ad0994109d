//! What every driver must do, as claims that a driver either meets or not.
