"""What our own pages may load: themselves, and pictures under PUBLIC_URL. Nothing inline."""

from urllib.parse import urlsplit


def content_security_policy(
    *, public_url: str | None = None, with_inline_styles: bool = False
) -> str:
    """Return the Content-Security-Policy of a page.

    Args:
        public_url: PUBLIC_URL: signed URLs start with it, so pictures come from there.
        with_inline_styles: GraphiQL's editor and menus write `<style>` elements while they run.
    """
    pictures = f" {_origin(public_url)}" if public_url else ""
    inline = " 'unsafe-inline'" if with_inline_styles else ""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            f"style-src 'self'{inline}",
            f"img-src 'self' data: blob:{pictures}",
            f"connect-src 'self'{pictures}",
            # Documents in DICOM files; they have a policy of their own.
            f"frame-src 'self'{pictures}",
            f"media-src 'self'{pictures}",
            "font-src 'self' data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
