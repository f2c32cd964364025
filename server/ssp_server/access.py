"""Who may call what."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.descriptor import MethodDescriptor
from google.rpc import status_pb2

from ssp_server import errors

_ADMIN_CALLS = frozenset(
    {"ssp.v1.Models.LoadModel", "ssp.v1.Models.UnloadModel", "ssp.v1.Admin.GetLoads", "ssp.v1.Admin.Drain"}
)


def is_admin_call(method: MethodDescriptor) -> bool:
    return method.full_name in _ADMIN_CALLS


@dataclass(frozen=True, kw_only=True)
class Access:
    """The bearer tokens: `tenants` by token, and the administrator's, which lets in too. With no tenants everybody is
    let in.

    Without `admin_token`, `admins_are_trusted` says whether who is let in may make the administrator's calls.
    """

    tenants: Mapping[str, str] = field(default_factory=dict)
    admin_token: str | None = None
    admins_are_trusted: bool

    def refusal(self, method: MethodDescriptor, authorization: str) -> status_pb2.Status | None:
        """Why a call with this `authorization` is refused; None if it is not."""
        is_admin = self.admin_token is not None and _is_bearer(authorization, self.admin_token)
        if self.tenants and not is_admin and self._token(authorization) is None:
            return errors.unauthenticated()
        if not is_admin_call(method) or is_admin:
            return None
        if self.admin_token is not None:
            return errors.permission_denied("this call needs the administrator's token, that of --admin-token-file")
        if self.admins_are_trusted:
            return None
        return errors.permission_denied(
            "this server can be reached from elsewhere and has no administrator: start it with --admin-token-file"
        )

    def tenant(self, authorization: str) -> str:
        """Whose sessions and prefixes a call may reach."""
        token = self._token(authorization)
        return "" if token is None else self.tenants[token]

    def _token(self, authorization: str) -> str | None:
        fitting = [token for token in self.tenants if _is_bearer(authorization, token)]
        return fitting[0] if fitting else None


def _is_bearer(authorization: str, token: str) -> bool:
    return hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())
