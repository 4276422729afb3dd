-- Periods: days since 1970-01-01 UTC (no key, no ARGV of its own), and the months that they are in.

-- Year, month and day of a day: Howard Hinnant's civil_from_days, in which a year begins in March.
local function date_of(day)
  local shifted = day + 719468
  local era = math.floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local since_march = math.floor((5 * of_year + 2) / 153)
  local month = since_march < 10 and since_march + 3 or since_march - 9
  return year + era * 400 + (month <= 2 and 1 or 0), month, of_year - math.floor((153 * since_march + 2) / 5) + 1
end

-- The month of a day as yyyymm: 20260131 is in 202601.
local function month_of(day)
  local year, month = date_of(day)
  return year * 100 + month
end

-- The first day of the month after a day's.
local function next_month(day)
  local year, month, of_month = date_of(day)
  local leap = (year % 4 == 0 and year % 100 ~= 0) or year % 400 == 0
  return day - of_month + 1 + ({31, leap and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31})[month]
end
