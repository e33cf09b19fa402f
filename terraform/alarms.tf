# Alarms on what `btc-assets ops backup-status --metrics` puts each minute, and on the machine. Silence is an alarm as well.

locals {
  # Metrics of the store, in its own namespace: threshold, minutes until the alarm, and what missing data means.
  store_alarms = {
    WalArchiveAgeSeconds = { above = 300, minutes = 5, missing = "breaching", says = "WAL has not been archived for 5 minutes: what is loaded now would be lost with the host." }
    LastBackupAgeSeconds = { above = 26 * 3600, minutes = 5, missing = "breaching", says = "The last backup is older than 26 hours." }
    WalFilesWaiting      = { above = 64, minutes = 5, missing = "missing", says = "More than 1 GiB of WAL waits for S3; at 4 GiB it is dropped, and recovery has a gap." }
    DataDiskUsedPercent  = { above = 80, minutes = 5, missing = "missing", says = "The data volume is 80 % full: enlarge it (data_volume_gb), or drop older ticks." }
  }

  # Metrics of AWS about the instance.
  instance_alarms = merge(
    { StatusCheckFailed = { statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 0, says = "The host, or its machine, fails its checks." } },
    startswith(var.instance_type, "t") ? {
      CPUCreditBalance = { statistic = "Minimum", comparison = "LessThanThreshold", threshold = 50, says = "CPU credits run out: from then on they cost extra. A steady load wants an m7i." }
    } : {},
  )
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = aws_kms_key.main.arn
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OurAlarms"
      Effect    = "Allow"
      Principal = { Service = "cloudwatch.amazonaws.com" }
      Action    = ["sns:Publish"]
      Resource  = [aws_sns_topic.alarms.arn]
      Condition = {
        ArnLike      = { "aws:SourceArn" = "arn:${local.partition}:cloudwatch:${var.region}:${local.account}:alarm:${var.name}-*" }
        StringEquals = { "aws:SourceAccount" = local.account }
      }
    }]
  })
}

resource "aws_sns_topic_subscription" "email" {
  count = var.alarm_email == null ? 0 : 1

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

resource "aws_cloudwatch_metric_alarm" "store" {
  for_each = local.store_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = var.name
  metric_name         = each.key
  dimensions          = { Host = var.name }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "instance" {
  for_each = local.instance_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = "AWS/EC2"
  metric_name         = each.key
  dimensions          = { InstanceId = aws_instance.host.id }
  statistic           = each.value.statistic
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = 300
  evaluation_periods  = 2
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# The machine below the host is broken: move to another, with the same volumes and address.
resource "aws_cloudwatch_metric_alarm" "recover" {
  alarm_name          = "${var.name}-StatusCheckFailed_System"
  alarm_description   = "The machine below the host fails; the host is moved to another one and starts there."
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed_System"
  dimensions          = { InstanceId = aws_instance.host.id }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 2
  alarm_actions       = ["arn:${local.partition}:automate:${var.region}:ec2:recover", aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  count = var.landing_events ? 1 : 0

  alarm_name          = "${var.name}-DeadLetters"
  alarm_description   = "Events were given up: the sensor's log says why, docs/automation.md what to do."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead[0].name }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}
