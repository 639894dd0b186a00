"""What users need to test what they add to Laconic: `check_stage` for codec stages."""

from laconic.testing._check import check_stage as check_stage
from laconic.testing._report import CheckResult as CheckResult
from laconic.testing._report import StageCheckError as StageCheckError
from laconic.testing._report import StageReport as StageReport
