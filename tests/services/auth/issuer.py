"""A small real OpenID provider: discovery and keys over HTTP, and JWTs that it signs."""

import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.servers import run_uvicorn

AUDIENCE = "orthanc-graphql"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def make_key(algorithm: str, *, rsa_bits: int = 2048) -> PrivateKey:
    if algorithm.startswith("ES"):
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, rsa_bits)


def public_jwk(key: PrivateKey, kid: str, **members: str) -> dict[str, Any]:
    kinds: dict[type, Any] = {
        rsa.RSAPublicKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePublicKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PublicKey: jwt.algorithms.OKPAlgorithm,
    }
    public = key.public_key()
    algorithm = next(found for kind, found in kinds.items() if isinstance(public, kind))
    return {**json.loads(algorithm.to_jwk(public)), "kid": kid, "use": "sig", **members}


class Issuer:
    """Its state can be changed while it runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: list[dict[str, Any]] = []
        self.is_away = False
        self.announced_issuer = url
        self.key_requests = 0

    def claims(self, **changed: Any) -> dict[str, Any]:
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "f3b1",
            "exp": int(time.time()) + 300,
            "realm_access": {"roles": ["offline_access", "viewer"]},
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    async def discovery(self, _request: Request) -> JSONResponse:
        jwks_uri = f"{self.url}/keys"
        return JSONResponse(
            {"issuer": self.announced_issuer, "jwks_uri": jwks_uri},
            status_code=503 if self.is_away else 200,
        )

    async def jwks(self, _request: Request) -> JSONResponse:
        self.key_requests += 1
        return JSONResponse({"keys": self.keys}, status_code=503 if self.is_away else 200)


@asynccontextmanager
async def run_issuer() -> AsyncIterator[Issuer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        issuer = Issuer(f"http://127.0.0.1:{listener.getsockname()[1]}")
        app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", issuer.discovery),
                Route("/keys", issuer.jwks),
            ]
        )
        async with run_uvicorn(uvicorn.Config(app, log_config=None, ws="none"), listener):
            yield issuer
