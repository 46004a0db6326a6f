"""All settings in one frozen class, read from the environment, `.env` and the command line."""

from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.auth.oidc import OidcRules, is_safe_provider_url
from services.auth.roles import Role
from services.dicom.layout import WalkLimits
from services.embedded.orthanc_configuration import TlsFiles


def none_if_blank(value: object) -> object:
    """Return a setting, or None if it is a blank text."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return None if isinstance(text, str) and not text.strip() else value


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return value.rstrip("/")


def _provider_url(value: str) -> str:
    if not is_safe_provider_url(value):
        raise ValueError("must start with https:// (http:// only for this machine)")
    return value


def _parts(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _networks(value: list[str]) -> list[str]:
    # Otherwise a typing error would be a proxy that is silently not trusted.
    return [str(ip_network(part)) for part in value]


HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""Without a slash at its end."""

ProviderUrl = Annotated[str, AfterValidator(_provider_url)]
"""Unchanged, because an issuer is compared character by character."""

CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_parts)]
"""A list without blanks around its parts and without empty ones."""

HttpUrls = Annotated[CommaSeparated, AfterValidator(lambda urls: [_http_url(url) for url in urls])]
"""As `HttpUrl`, comma-separated."""


def _http_urls(value: list[str]) -> list[str]:
    if not all(part.startswith(("http://", "https://")) for part in value):
        raise ValueError("must start with http:// or https://")
    return list(dict.fromkeys(value))


WebhookUrls = Annotated[CommaSeparated, AfterValidator(_http_urls)]
"""Addresses as they were given, each once: a slash at the end may matter."""

Networks = Annotated[CommaSeparated, AfterValidator(_networks)]
"""Addresses and networks, all spelled as networks."""


_MIB = 1024 * 1024
_GIB = 1024 * _MIB


class LabelRule(BaseModel):
    """A label for new studies that match all given conditions.

    Attributes:
        label: 1 to 64 printable characters.
        calling_ae_title: Of the application that sent the first image, as Orthanc notes it.
        institution_name: InstitutionName (0008,0080) of the study.
        issuer_of_patient_id: IssuerOfPatientID (0010,0021) of the study.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(min_length=1, max_length=64, pattern=r"^\S(.*\S)?$")
    calling_ae_title: str | None = Field(default=None, alias="callingAETitle")
    institution_name: str | None = Field(default=None, alias="institutionName")
    issuer_of_patient_id: str | None = Field(default=None, alias="issuerOfPatientID")

    @model_validator(mode="after")
    def _has_a_condition(self) -> "LabelRule":
        conditions = (self.calling_ae_title, self.institution_name, self.issuer_of_patient_id)
        if not any(conditions):
            raise ValueError("a rule needs callingAETitle, institutionName or issuerOfPatientID")
        return self


class Settings(BaseSettings):
    """Settings; the environment variable is the field's name in capitals.

    Secrets have no default. Names contain their unit.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    # Where things are
    data_dir: Path = Field(
        default=Path(".data"), description="Folder of the embedded stores and the generated keys."
    )
    mongodb_url: SecretStr | None = Field(
        default=None, description="MongoDB to use; empty: a private one in DATA_DIR."
    )
    mongodb_database: str = Field(
        default="orthanc_graphql", description="Name of the database in MongoDB."
    )
    orthanc_url: HttpUrl | None = Field(
        default=None, description="Orthanc to use; empty: a private one in DATA_DIR."
    )
    orthanc_read_urls: HttpUrls = Field(
        default=[],
        description="More Orthancs on the database and storage of ORTHANC_URL, comma-separated: "
        "pictures, files and archives are read from them; ORTHANC_URL stores and searches. "
        "Empty: none.",
    )
    orthanc_username: str = Field(default="", description="Orthanc's user name.")
    orthanc_password: SecretStr = Field(default=SecretStr(""), description="Orthanc's password.")
    enable_pacs_integration: bool = Field(
        default=True,
        description="false: metadata is served; uploads and frames are refused.",
    )
    orthanc_dicom_port: int | None = Field(
        default=None, ge=1, le=65535, description="DICOM port of the embedded Orthanc; empty: off."
    )
    dicom_ae_title: str | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        pattern=r"^[A-Za-z0-9_.\- ]+$",
        description="AE title of the embedded Orthanc, and of this server when it calls "
        "modalities; empty: ORTHANC, or that of the Orthanc at ORTHANC_URL.",
    )
    dicom_unknown_may_store: bool = Field(
        default=False,
        description="true: senders that are not declared may store in the embedded Orthanc.",
    )
    dicom_check_host: bool = Field(
        default=True,
        description="false: the embedded Orthanc identifies a declared modality only by its AE "
        "title, not also by its address.",
    )
    dicom_tls_certificate: Path | None = Field(
        default=None,
        description="PEM file with the certificate of this server for DICOM over TLS, for "
        "modalities that are declared with `useTls`; empty: off.",
    )
    dicom_tls_key: Path | None = Field(
        default=None, description="PEM file with its private key, without a passphrase."
    )
    dicom_tls_ca: Path | None = Field(
        default=None,
        description="PEM file with the trusted certificates of the other sides.",
    )
    dicom_tls_required: bool = Field(
        default=False,
        description="true: the DICOM port of the embedded Orthanc accepts only TLS connections "
        "from peers with a trusted certificate.",
    )
    orthanc_memory_bytes: int = Field(
        default=5 * _GIB,
        ge=1 * _GIB,
        description="Most memory of the embedded Orthanc, in bytes; it is restarted if it needs "
        "more. Storing a file takes 3.3 times its size.",
    )
    worklist_folder: Path | None = Field(
        default=None,
        description="Folder that Orthanc's worklist plugin serves to scanners; the entries are "
        "written into it. Empty: a folder in DATA_DIR for the embedded Orthanc, none for another.",
    )
    backup_folder: Path | None = Field(
        default=None,
        description="Folder for the backups that `createBackup` makes; empty: that is off.",
    )
    load_samples: bool = Field(
        default=True, description="Put a few public studies into embedded stores that are empty."
    )

    # Addresses and origins
    public_url: HttpUrl | None = Field(
        default=None, description="Scheme, host and path that signed URLs start with."
    )
    cors_allowed_origins: CommaSeparated | None = Field(
        default=None,
        description="Origins of front ends, comma-separated, as `https://viewer.example.org`; "
        "empty: any port of localhost if all stores are embedded, otherwise none.",
    )
    cors_allowed_headers: CommaSeparated = Field(
        default=[],
        description="Headers that pages of these origins may send besides the usual ones and those "
        "of tracing, comma-separated.",
    )
    allowed_hosts: CommaSeparated = Field(
        default=[],
        description="Names under which a server without credentials answers, besides localhost and "
        "127.0.0.1, comma-separated, as `192.168.1.20`: for a development server that forwards the "
        "requests of other devices. Everyone who can reach it is allowed everything.",
    )
    frame_url_keys: SecretStr | None = Field(
        default=None,
        description="kid:key pairs, comma-separated, keys of 32 bytes or more in base64url; the "
        "first signs, all verify. Generated into DATA_DIR for embedded stores, otherwise required.",
    )
    trusted_proxies: Networks = Field(
        default=[],
        description="Addresses and networks of proxies, comma-separated, as "
        "`10.0.0.5,10.1.0.0/16`: their X-Forwarded-For and X-Forwarded-Proto are trusted; "
        "empty: none.",
    )

    # Credentials and permissions
    tokens_file: Path | None = Field(
        default=None,
        description="File of tokens of an earlier release, imported into MongoDB at the start; "
        "empty: tokens.json in DATA_DIR.",
    )
    oidc_issuer: ProviderUrl | None = Field(
        default=None,
        description="Issuer of an OpenID provider whose JWTs are accepted, exactly as in `iss`; "
        "https, or http on this machine. Empty: none.",
    )
    oidc_audience: str | None = Field(
        default=None, description="`aud` that JWTs must have; required with OIDC_ISSUER."
    )
    oidc_jwks_url: ProviderUrl | None = Field(
        default=None,
        description="Address of the provider's keys; empty: that of its discovery document.",
    )
    oidc_role_claim: str = Field(
        default="realm_access.roles",
        min_length=1,
        description="Claim with the roles, a string or a list; dots separate nested names.",
    )
    oidc_roles: dict[str, Literal["viewer", "uploader", "admin"]] = Field(
        default={"viewer": "viewer", "uploader": "uploader", "admin": "admin"},
        description="Roles of this server by the names of the provider, as JSON object.",
    )
    oidc_label_claim: str | None = Field(
        default=None,
        description="Claim with labels, a string or a list; dots separate nested names. A user "
        "with it sees only studies with one of these labels, and is at most an uploader; without "
        "the claim only administrators see studies. Empty: users are not limited.",
    )
    label_rules: list[LabelRule] = Field(
        default=[],
        description="Labels for new studies, as JSON: "
        '`[{"label": "ward-3", "callingAETitle": "CT1", "institutionName": "Clinic B", '
        '"issuerOfPatientID": "B"}]`; all conditions of a rule must match. Empty: none.',
    )
    share_max_days: int = Field(
        default=90, gt=0, le=3660, description="Longest validity of a share, in days."
    )
    ohif_url: HttpUrl | None = Field(
        default=None,
        description="Address of an OHIF viewer with the data source `dicomwebproxy`, as "
        "`https://ohif.example.org`: shares then have a link to it, and its pages may use this "
        "server. Empty: none.",
    )
    audit_retention_days: int | None = Field(
        default=None,
        gt=0,
        description="Days after which MongoDB deletes new audit records; empty: never.",
    )

    # Jobs
    job_concurrency: int = Field(
        default=4,
        gt=0,
        le=64,
        description="Jobs that run at once; of those that talk to one modality, one.",
    )
    job_attempts: int = Field(
        default=3, gt=0, le=100, description="Attempts of a job before it counts as failed."
    )
    export_folder: Path | None = Field(
        default=None,
        description="Local folder to which administrators may export studies; empty: none.",
    )
    job_retention_days: int = Field(
        default=30, gt=0, description="Days after which jobs that have ended are deleted."
    )

    # Shutdown
    shutdown_delay_seconds: float = Field(
        default=0,
        ge=0,
        description="Time after SIGTERM in which `/readyz` answers 503 and everything is still "
        "served; 5 behind a load balancer.",
    )
    shutdown_seconds: int = Field(
        default=30,
        ge=0,
        description="Time that running requests then have before they are cancelled, in seconds.",
    )

    # Monitoring
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port of `/metrics` for Prometheus, without credentials; further workers use "
        "the next ports. Empty: off.",
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address on which `/metrics` listens; only Prometheus should reach it.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="`json`: one JSON object per line, for a log collector."
    )

    # Operations of clients
    trusted_documents_file: Path | None = Field(
        default=None,
        description="Manifest of the operations of front ends (Relay, graphql-codegen, Apollo), or "
        "a folder of manifests: clients may send `documentId` instead of a text. Empty: none.",
    )
    trusted_documents_only: bool = Field(
        default=False,
        description="true: no other operation is executed; needs TRUSTED_DOCUMENTS_FILE.",
    )

    # Events for other systems
    webhook_urls: WebhookUrls = Field(
        default=[],
        description="Addresses that get events of studies, comma-separated; empty: none.",
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="Signs the events: `whsec_` and 24 to 64 bytes in base64; several, "
        "comma-separated, while a receiver changes from one to another.",
    )
    webhook_hours: float = Field(
        default=72, gt=0, description="Hours after which an undelivered event is dropped."
    )

    # Synchronization with Orthanc
    sync_poll_seconds: float = Field(
        default=0.5, gt=0, le=60, description="Pause before an unchanged feed is read again."
    )
    sync_interval_seconds: float = Field(
        default=60, gt=0, description="Pause between two comparisons with Orthanc."
    )
    study_stable_seconds: float = Field(
        default=30, gt=0, description="Time without a change after which a study is stable."
    )
    orthanc_events_secret: SecretStr | None = Field(
        default=None,
        description="Letters and digits with which Orthanc's Lua script authenticates at "
        "/internal/orthanc-events; generated for an embedded Orthanc.",
    )

    # Limits
    graphql_body_max_bytes: int = Field(
        default=_MIB, gt=0, description="Largest GraphQL request without files, in bytes."
    )
    query_max_characters: int = Field(
        default=15_000, gt=0, description="Longest text of a query, in characters."
    )
    query_max_tokens: int = Field(
        default=2_000, gt=0, description="Most names, values and punctuation of a query."
    )
    query_max_depth: int = Field(
        default=12, gt=0, description="Most levels of nested fields in a query."
    )
    query_max_aliases: int = Field(default=30, ge=0, description="Most aliases in a query.")
    query_max_root_fields: int = Field(
        default=20, gt=0, description="Most fields of the operation itself."
    )
    query_max_nodes: int = Field(
        default=50_000, gt=0, description="Most objects in the answer to a query."
    )
    upload_max_bytes: int = Field(
        default=4 * _GIB, gt=0, description="Largest upload request, in bytes."
    )
    upload_max_files: int = Field(
        default=1000, gt=0, description="Most files in one GraphQL upload."
    )
    upload_idle_seconds: float = Field(
        default=30, gt=0, description="Longest time without data of a request."
    )
    upload_concurrency: int = Field(
        default=6, gt=0, description="Files of one upload that are sent to Orthanc at once."
    )
    zip_max_members: int = Field(default=10_000, gt=0, description="Most members of a ZIP.")
    zip_max_bytes: int = Field(
        default=20 * _GIB, gt=0, description="Largest unpacked size of a ZIP, in bytes."
    )
    zip_max_ratio: int = Field(default=100, gt=0, description="Highest compression of a member.")
    sequence_max_depth: int = Field(
        default=24, gt=0, description="Deepest nesting of sequences in a header."
    )
    sequence_max_items: int = Field(
        default=20_000, gt=0, description="Most items of one sequence in a header."
    )
    header_max_items: int = Field(
        default=200_000, gt=0, description="Most items of all sequences in a header."
    )
    dataset_max_elements: int = Field(
        default=5_000, gt=0, description="Most elements at the top level or in one item."
    )
    header_max_elements: int = Field(
        default=500_000, gt=0, description="Most elements and items in a header."
    )
    keep_tiff_preamble: bool = Field(
        default=False, description="Keep the first 128 bytes of dual DICOM/TIFF files."
    )
    websockets_per_client: int = Field(
        default=200,
        gt=0,
        description="Most WebSockets of one client address; behind a proxy set TRUSTED_PROXIES, "
        "because otherwise all its clients count as one.",
    )
    archives_per_client: int = Field(
        default=4,
        gt=0,
        description="Most archives, exports and files that one client address downloads at once; "
        "further files wait for 5 s.",
    )
    page_max_size: int = Field(default=500, gt=0, description="Largest `first` of a list.")
    frame_max_pixels: int = Field(
        default=64_000_000, gt=0, description="Largest frame that is rendered, in pixels."
    )
    frame_decode_seconds: float = Field(
        default=10, gt=0, description="Longest fetching, and longest decoding, of a frame."
    )
    renderer_processes: int | None = Field(
        default=None,
        gt=0,
        description="Processes that decode frames; empty: one for each processor.",
    )
    renderer_memory_bytes: int = Field(
        default=4 * _GIB, ge=512 * _MIB, description="Address space of each of them, in bytes."
    )
    frame_queue_size: int = Field(
        default=64, gt=0, description="Most frames that wait to be rendered."
    )
    frame_cache_bytes: int = Field(
        default=256 * _MIB, ge=0, description="Memory for rendered frames, in bytes."
    )
    frame_cross_origin_resource_policy: Literal["same-origin", "same-site", "cross-origin"] = Field(
        default="cross-origin",
        description="Origins whose pages may show frames; the signature protects the frames.",
    )
    operation_seconds: float = Field(default=10, gt=0, description="Longest time of a query.")
    modality_seconds: float = Field(
        default=30,
        gt=0,
        le=600,
        description="Longest query of a modality; the answers until then are returned.",
    )
    remote_answers_max: int = Field(
        default=500, gt=0, description="Most answers of a query at a modality."
    )
    frame_url_seconds: int = Field(
        default=1800,
        ge=60,
        le=86_400,
        description="Shortest validity of a signed URL; it is up to a third longer.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _blank_is_absent(cls, value: object, info: ValidationInfo) -> object:
        may_be_absent = cls.model_fields[str(info.field_name)].default is None
        return none_if_blank(value) if may_be_absent else value

    @model_validator(mode="after")
    def _has_what_others_require(self) -> "Settings":
        if self.oidc_issuer is not None and self.oidc_audience is None:
            raise ValueError("OIDC_AUDIENCE is required with OIDC_ISSUER")
        if self.webhook_urls and self.webhook_secret is None:
            raise ValueError(
                "WEBHOOK_SECRET is required with WEBHOOK_URLS. Make one with: "
                "echo whsec_$(openssl rand -base64 32)"
            )
        if self.trusted_documents_only and self.trusted_documents_file is None:
            raise ValueError("TRUSTED_DOCUMENTS_FILE is required with TRUSTED_DOCUMENTS_ONLY")
        tls = (self.dicom_tls_certificate, self.dicom_tls_key, self.dicom_tls_ca)
        if (any(tls) or self.dicom_tls_required) and not all(tls):
            raise ValueError(
                "DICOM_TLS_CERTIFICATE, DICOM_TLS_KEY and DICOM_TLS_CA belong together: set all"
            )
        if self.orthanc_read_urls and self.orthanc_url is None:
            raise ValueError("ORTHANC_URL is required with ORTHANC_READ_URLS")
        if self.frame_url_keys is None and not self.is_fully_embedded:
            raise ValueError(
                "FRAME_URL_KEYS is required when MONGODB_URL or ORTHANC_URL is set. "
                "Make one with: orthanc-graphql key"
            )
        return self

    @property
    def tokens_path(self) -> Path:
        """The file of tokens of an earlier release, which need not exist."""
        return self.tokens_file or self.data_dir / "tokens.json"

    @property
    def oidc_rules(self) -> OidcRules | None:
        """Which JWTs are accepted; None: none."""
        if self.oidc_issuer is None or self.oidc_audience is None:
            return None
        return OidcRules(
            issuer=self.oidc_issuer,
            audience=self.oidc_audience,
            jwks_url=self.oidc_jwks_url,
            role_claim=self.oidc_role_claim,
            label_claim=self.oidc_label_claim,
            roles={name: Role[role.upper()] for name, role in self.oidc_roles.items()},
        )

    @property
    def walk_limits(self) -> WalkLimits:
        """Limits of the structure of a file, the same for every way in."""
        return WalkLimits(
            sequence_max_depth=self.sequence_max_depth,
            sequence_max_items=self.sequence_max_items,
            header_max_items=self.header_max_items,
            dataset_max_elements=self.dataset_max_elements,
            header_max_elements=self.header_max_elements,
            frame_max_pixels=self.frame_max_pixels,
        )

    @property
    def audit_retention(self) -> timedelta | None:
        """How long audit records are kept; None: they are never deleted."""
        days = self.audit_retention_days
        return None if days is None else timedelta(days=days)

    @property
    def job_retention(self) -> timedelta:
        """How long jobs are kept after their end."""
        return timedelta(days=self.job_retention_days)

    @property
    def embeds_mongodb(self) -> bool:
        """Whether this process runs its own MongoDB."""
        return self.mongodb_url is None

    @property
    def embeds_orthanc(self) -> bool:
        """Whether this process runs its own Orthanc."""
        return self.orthanc_url is None and self.enable_pacs_integration

    @property
    def worklist_path(self) -> Path | None:
        """Where the files of the worklist are written; None: nowhere."""
        if self.worklist_folder is not None:
            return self.worklist_folder
        return self.data_dir / "worklist" if self.embeds_orthanc else None

    @property
    def dicom_tls(self) -> TlsFiles | None:
        """The files of DICOM over TLS; None: it is off."""
        certificate, key = self.dicom_tls_certificate, self.dicom_tls_key
        authorities = self.dicom_tls_ca
        if certificate is None or key is None or authorities is None:
            return None
        return TlsFiles(certificate, key, authorities)

    @property
    def own_ae_title(self) -> str | None:
        """The AE title of this server; None: that of the Orthanc at ORTHANC_URL."""
        if self.dicom_ae_title is not None:
            return self.dicom_ae_title.strip()
        return None if self.orthanc_url is not None else "ORTHANC"

    @property
    def is_fully_embedded(self) -> bool:
        """Whether both stores are embedded."""
        return self.embeds_mongodb and self.orthanc_url is None
