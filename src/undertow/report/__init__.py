"""An assessment as one page that opens anywhere: words, tables and figures, and no request.

`write.html` turns an assessment into the text of one HTML document; the face writes the file.
Below it stand `front` and `family` (pages), `pieces` (cards, bands, tables), `pictures` (which
study has which figures), `words` (numbers, units, instants) and `markup` (text that is escaped
unless somebody says otherwise).
"""

from undertow.report.assessed import Assessed

__all__ = ["Assessed"]
