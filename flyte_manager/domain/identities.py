"""Who calls."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    subject: str
    name: str = ""
    """in full"""
    given_name: str = ""
    family_name: str = ""
    email: str = ""
    username: str = ""


@dataclass(frozen=True, slots=True)
class IdentityHeaders:
    """By which headers a proxy in front, which lets nobody in unknown, tells who calls. Not trusted: they are not
    looked at."""

    trusted: bool = False
    claims: str = "X-Amzn-Oidc-Data"
    """has a JWT; empty: none has"""
    subject: str = "X-Amzn-Oidc-Identity"
    """has the bare subject; empty: none has"""
    email: str = ""
    """has the address that belongs to the bare subject; empty: none has"""
