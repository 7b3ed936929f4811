"""Images that the API fetches from https:// URLs, within the rules of `image_urls`."""

from __future__ import annotations

from api.forms.json_image import ImageUrl
from inference.errors import InvalidRequest, PayloadTooLarge
from inference.runtime.url_guard import AnswerTooLarge, UrlGuard, UrlRefused, UrlRules, UrlUnreachable
from inference.settings import ImageUrlSettings

_HEADERS = {"Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity"}
_OK, _REDIRECTS = 200, range(300, 400)


class ImageFetcher:
    """Fetches images.

    Args:
        max_bytes: limit for an image.
    """

    def __init__(self, settings: ImageUrlSettings, *, max_bytes: int) -> None:
        self._guard = UrlGuard(UrlRules.of(settings)) if settings.enabled else None
        self._max_bytes = max_bytes

    def fetch(self, url: ImageUrl) -> bytes:
        """Return the bytes of an image; the media type of the answer has no effect, as that of a form.

        Raises:
            InvalidRequest: this service does not fetch it, or its host does not answer with it.
            PayloadTooLarge.
        """
        if self._guard is None:
            raise InvalidRequest(
                "this service fetches no images (image_urls.enabled)", field=url.field, expected="s3://BUCKET/KEY, or base64"
            )
        try:
            answer = self._guard.fetch(url.url, max_bytes=self._max_bytes, headers=_HEADERS)
        except UrlRefused as error:
            raise InvalidRequest(str(error), field=url.field, expected="a URL that this service may fetch") from error
        except UrlUnreachable as error:
            raise _not_fetched(url, str(error)) from error
        except AnswerTooLarge as error:
            detail = f"the image cannot be fetched: {error}"
            raise PayloadTooLarge(detail, field=url.field, expected=f"at most {self._max_bytes} bytes") from error
        if answer.status != _OK:
            hint = "; redirects are not followed" if answer.status in _REDIRECTS else ""
            raise _not_fetched(url, f"the answer has the status {answer.status}{hint}")
        return answer.body


def _not_fetched(url: ImageUrl, reason: str) -> InvalidRequest:
    detail = f"the image cannot be fetched: {reason}"
    return InvalidRequest(detail, field=url.field, expected="a URL whose answer is the image, with the status 200")
